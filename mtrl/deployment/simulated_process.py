"""The process of the simulated robot: `python -m mtrl.deployment.simulated_process`."""

from __future__ import annotations

from mtrl import registry
from mtrl.tasks import Environment, Task

from .robot_process import run_robot


def simulator(task: Task) -> Environment:
    """The suite's own environment stands in for hardware."""
    return registry.suite(task.suite).environment(task)


if __name__ == "__main__":
    run_robot(simulator)
