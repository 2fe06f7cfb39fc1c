"""The contract of a robot, and its process for a module that connects to the hardware.

A robot is a Python module run as its own process. It reads a `SessionSpec` from its standard input,
attaches the shared blocks, publishes one observation per tick in wall-clock time and acts on the newest
command, which it stops trusting on its own when commands stop. `run_robot` does all of that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from mtrl import registry
from mtrl.errors import GuardError
from mtrl.tasks import Environment, Task

from ..guard.limits import RobotConfig
from ..realtime.messages import ControlField, EpisodeSpec
from ..realtime.processes import ProcessContext, run_child
from ..realtime.ticker import undisturbed
from .loop import RobotLoop

PRIORITY = 30
"""SCHED_FIFO priority: below the policy's, which does less per tick."""


@dataclass(frozen=True)
class Robot:
    """An entry of the registry of robots."""

    name: str
    """Registry name."""
    module: str
    """Module that is run as the robot's process."""
    config: RobotConfig
    """Its defaults."""


Connect = Callable[[Task], Environment]
"""A task -> the environment that carries it out. `reset` brings it to a start, `step` sends one command and
writes the newest observation; both return well within one period, and `close` leaves the robot at rest."""


def run_robot(connect: Connect) -> None:
    """The whole of a robot's process; its module ends with a call of this under `__name__ == "__main__"`.

    Reads the session from standard input, then for every episode connects, publishes one observation per
    period and acts on the newest command, which it stops trusting when commands stop. An exception of
    `connect` or of its environment ends the process, and the session reports the traceback.
    """

    def body(context: ProcessContext) -> None:
        for number, episode in enumerate(context.spec.episodes, start=1):
            _run_episode(context, number, episode, connect)

    run_child(body)


def _run_episode(context: ProcessContext, number: int, episode: EpisodeSpec, connect: Connect) -> None:
    task = registry.task(episode.task, episode.options)
    if task.protocol_hash != episode.protocol_hash:
        raise GuardError(f"this process builds {episode.task} differently from the session that started it")
    memory, config = context.memory, context.spec.robot
    with contextlib.closing(connect(task)) as environment:
        loop = RobotLoop(environment, task, config, memory.observations, memory.commands)
        loop.reset(episode.start, number)
        memory.control[ControlField.ROBOT_READY] = number
        context.wait_for(number, ControlField.GO, ControlField.POLICY_READY)
        with undisturbed(PRIORITY if config.fifo else 0) as granted:
            memory.control[ControlField.ROBOT_FIFO] = granted
            loop.run(context.raise_if_ended)
    memory.control[ControlField.ROBOT_DONE] = number
    context.wait_for(number, ControlField.POLICY_DONE)
