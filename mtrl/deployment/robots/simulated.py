"""The simulated robot "sim"; `python -m mtrl.deployment.robots.simulated` is its process."""

from __future__ import annotations

from mtrl import registry
from mtrl.tasks import Environment, Task, undisturbed

from ..guard.limits import RobotConfig
from .robot import Robot, run_robot

ROBOT = Robot("sim", "mtrl.deployment.robots.simulated", RobotConfig(), exclusive=False)


def simulator(task: Task) -> Environment:
    """The suite's own environment, used in place of hardware; its disturbances are those of the wire."""
    return registry.environment(undisturbed(task))


if __name__ == "__main__":
    run_robot(simulator)
