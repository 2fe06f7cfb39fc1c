"""The expert of the mazes: the shortest way over the cells, driven piece by piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers

from .maze import Maze

STIFFNESS = 2.0
"""Share of the full force per metre to the target."""
BRAKING = 1.2
"""Share of the full force per metre a second; near the critical damping of the ball on its spring."""


class MazeExpert:
    """A proportional-derivative controller towards the end of the next straight piece of the shortest way.

    It reads the observation alone and keeps nothing, so it finds its way from wherever it was pushed.
    """

    def __init__(self, maze: Maze) -> None:
        self._maze = maze

    def reset(self, generator: np.random.Generator) -> None:
        """Nothing to draw: the way follows from the observation."""

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        """The clean force [2] in [-1, 1]."""
        x, y, velocity_x, velocity_y, goal_x, goal_y = (float(value) for value in observation["state"])
        cell, goal = self._maze.cell_at(x, y), self._maze.cell_at(goal_x, goal_y)
        target = self._maze.straight_way(cell, goal)
        target_x, target_y = (goal_x, goal_y) if target == goal else self._maze.centre(target)
        force = (
            STIFFNESS * (target_x - x) - BRAKING * velocity_x,
            STIFFNESS * (target_y - y) - BRAKING * velocity_y,
        )
        return np.clip(np.array(force, dtype=np.float32), -1.0, 1.0)
