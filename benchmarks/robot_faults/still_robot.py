"""A robot that costs nothing: its observation changes a little each decision."""

from __future__ import annotations

import numpy as np

from mtrl.deployment import run_robot
from mtrl.errors import UnsupportedError
from mtrl.tasks import Buffers, Task, TaskAction


class StillRobot:
    """Any task's state; ended by its horizon alone."""

    def __init__(self, task: Task) -> None:
        self._state = np.linspace(-0.5, 0.5, task.observation.state or 1, dtype=np.float32)

    def reset(self, start: int, out: Buffers) -> None:
        """Always the same."""
        out["state"][...] = self._state

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Rolls the numbers round."""
        self._state = np.roll(self._state, 1)
        out["state"][...] = self._state
        return 0.0, False, False

    def render(self) -> np.ndarray:
        """There is nothing to see."""
        raise UnsupportedError("a robot without a body has no image")

    def close(self) -> None:
        """Nothing is held."""


if __name__ == "__main__":
    run_robot(StillRobot)
