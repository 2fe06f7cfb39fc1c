"""The body of a robot's process: every episode of a session, in wall-clock time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from mtrl import registry
from mtrl.errors import GuardError
from mtrl.tasks import Environment, Task

from .process import Link, run_child
from .simulated import SimulatedRobot
from .ticker import undisturbed
from .wire import EpisodeSpec, Word

PRIORITY = 30
"""SCHED_FIFO priority: below the policy's, which does less per tick."""

Connect = Callable[[Task], Environment]
"""A task -> what carries it out. `reset` brings it to a start, `step` sends one command and writes the
newest observation; both return well within one period of the task, and `close` leaves it at rest."""


def run_robot(connect: Connect) -> None:
    """The whole of a robot's process; its module ends with a call of this under `__name__ == "__main__"`.

    Reads the session from standard input, then for every episode connects, publishes one observation per
    period and acts on the newest command, which it stops trusting when commands stop. Whatever `connect`
    or its product raises ends the process, and the session reports the traceback.
    """
    run_child(partial(_main, connect=connect))


def _main(link: Link, connect: Connect) -> None:
    for number, episode in enumerate(link.spec.episodes, start=1):
        _run_episode(link, number, episode, connect)


def _run_episode(link: Link, number: int, episode: EpisodeSpec, connect: Connect) -> None:
    """Builds the task, waits until the policy is ready too, and runs in wall-clock time."""
    task = registry.task(episode.task, episode.options)
    if task.protocol_hash != episode.protocol_hash:
        raise GuardError(f"this process builds {episode.task} differently from the session that started it")
    with contextlib.closing(connect(task)) as plant:
        wire = link.wire
        robot = SimulatedRobot(plant, task, link.spec.robot, wire.observations, wire.commands)
        robot.reset(episode.start, number)
        link.tell(Word.ROBOT_READY, number)
        link.wait_for(lambda: link.told(Word.GO) >= number and link.told(Word.POLICY_READY) >= number)
        with undisturbed(PRIORITY if link.spec.robot.fifo else 0) as granted:
            link.tell(Word.ROBOT_FIFO, granted)
            robot.run(link.raise_if_ended)
    link.tell(Word.ROBOT_DONE, number)
    link.wait_for(lambda: link.told(Word.POLICY_DONE) >= number)
