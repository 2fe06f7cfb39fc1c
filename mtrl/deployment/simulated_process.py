"""The process of the simulated robot: `python -m mtrl.deployment.simulated_process`."""

from __future__ import annotations

import contextlib

from mtrl import registry
from mtrl.errors import GuardError
from mtrl.tasks import Environment

from .process import Link, run_child
from .simulated import SimulatedRobot
from .ticker import undisturbed
from .wire import EpisodeSpec, Word

PRIORITY = 30
"""SCHED_FIFO priority: below the policy's, which does less per tick."""


def main(link: Link) -> None:
    """Runs every episode of the session; whatever a simulator raises ends the process with its traceback."""
    for number, episode in enumerate(link.spec.episodes, start=1):
        run_episode(link, number, episode)


def run_episode(link: Link, number: int, episode: EpisodeSpec) -> None:
    """Builds the task, waits until the policy is ready too, and runs in wall-clock time."""
    task = registry.task(episode.task, episode.options)
    if task.protocol_hash != episode.protocol_hash:
        raise GuardError(f"this process builds {episode.task} differently from the session that started it")
    environment: Environment = registry.suite(task.suite).environment(task)
    with contextlib.closing(environment):
        wire = link.wire
        robot = SimulatedRobot(environment, task, link.spec.robot, wire.observations, wire.commands)
        robot.reset(episode.start, number)
        link.tell(Word.ROBOT_READY, number)
        link.wait_for(lambda: link.told(Word.GO) >= number and link.told(Word.POLICY_READY) >= number)
        with undisturbed(PRIORITY if link.spec.robot.fifo else 0) as granted:
            link.tell(Word.ROBOT_FIFO, granted)
            robot.run(link.raise_if_ended)
    link.tell(Word.ROBOT_DONE, number)
    link.wait_for(lambda: link.told(Word.POLICY_DONE) >= number)


if __name__ == "__main__":
    run_child(main)
