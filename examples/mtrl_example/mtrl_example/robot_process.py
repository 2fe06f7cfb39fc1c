"""The process of the robot `example`: `python -m mtrl_example.robot_process`."""

from __future__ import annotations

import numpy as np

from mtrl.deployment import run_robot
from mtrl.errors import UnsupportedError
from mtrl.tasks import Buffers, Task, TaskAction

from .suite import TASK_NAME, Cart

LAG = 0.5
"""Share of a commanded change of velocity that the motor makes in one period."""


class LaggingCart(Cart):
    """Stands in for hardware: a motor that follows its command with a lag."""

    def __init__(self) -> None:
        super().__init__()
        self._velocity = 0.0

    def reset(self, start: int, out: Buffers) -> None:
        """At rest."""
        self._velocity = 0.0
        super().reset(start, out)

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Sends one velocity and reads where the cart is."""
        assert isinstance(action, np.ndarray)
        self._velocity += LAG * (float(action[0]) - self._velocity)
        return super().step(np.array([self._velocity], dtype=np.float32), out)


def connect(task: Task) -> LaggingCart:
    """The cart, for the one task that it can do."""
    if task.name != TASK_NAME:
        raise UnsupportedError(f"this robot does {TASK_NAME} only; got {task.name}")
    return LaggingCart()


if __name__ == "__main__":
    run_robot(connect)
