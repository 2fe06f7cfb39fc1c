"""The simulation: a point with commanded velocity, a round obstacle, a goal behind it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers, TaskAction, start_generator

from ..images import draw_discs
from . import geometry

TASK_NAME = "point/obstacle"
FRAME_SIZE = 300
"""Height and width of an image in pixels."""
VIEW = 1.2
"""Half of the shown width in metres."""
BACKGROUND, OBSTACLE, GOAL, POINT = (245, 245, 245), (90, 90, 90), (60, 170, 90), (200, 60, 50)
"""RGB."""


class PointEnvironment:
    """Observation (x, y, goal x - x, goal y - y), action a velocity in [-1, 1]^2 of `geometry.SPEED`.

    Reward: metres gained towards the goal, and -1 for touching the obstacle, which terminates the episode.
    Success: within `geometry.GOAL_RADIUS` of the goal; the episode goes on.
    """

    def __init__(self) -> None:
        self._x = self._y = 0.0
        self._goal = geometry.GOAL
        self._touched = False

    def reset(self, start: int, out: Buffers) -> None:
        """Draws start and goal near the axis of symmetry; `out["state"]`: float32 [4]."""
        generator = start_generator(TASK_NAME, start)
        along, across, goal = generator.uniform(-1.0, 1.0, 3)
        self._x = geometry.START[0] + geometry.START_SPREAD[0] * float(along)
        self._y = geometry.START[1] + geometry.START_SPREAD[1] * float(across)
        self._goal = (geometry.GOAL[0], geometry.GOAL[1] + geometry.GOAL_SPREAD * float(goal))
        self._touched = False
        self._write(out["state"])

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Moves for a 20th of a second; a point in the obstacle stays where it touched."""
        assert isinstance(action, np.ndarray)
        before = self._distance_to_goal()
        if not self._touched:
            reach = geometry.SPEED / geometry.RATE_HZ
            self._x = _clip(self._x + reach * _clip(float(action[0]), 1.0), geometry.ARENA)
            self._y = _clip(self._y + reach * _clip(float(action[1]), 1.0), geometry.ARENA)
            from_centre = math.hypot(
                self._x - geometry.OBSTACLE_CENTRE[0], self._y - geometry.OBSTACLE_CENTRE[1]
            )
            self._touched = from_centre <= geometry.OBSTACLE_RADIUS
        self._write(out["state"])
        after = self._distance_to_goal()
        reward = before - after - float(self._touched)
        return reward, self._touched, not self._touched and after <= geometry.GOAL_RADIUS

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB image from above, [300, 300, 3]."""
        frame = np.full((FRAME_SIZE, FRAME_SIZE, 3), BACKGROUND, dtype=np.uint8)
        across = np.linspace(-VIEW, VIEW, FRAME_SIZE)
        discs = (
            (geometry.OBSTACLE_CENTRE, geometry.OBSTACLE_RADIUS, OBSTACLE),
            (self._goal, geometry.GOAL_RADIUS, GOAL),
            ((self._x, self._y), 0.03, POINT),
        )
        draw_discs(frame, across, -across, discs)
        return frame

    def close(self) -> None:
        """Nothing to free."""

    def _distance_to_goal(self) -> float:
        return math.hypot(self._goal[0] - self._x, self._goal[1] - self._y)

    def _write(self, out: npt.NDArray[np.generic]) -> None:
        out[...] = (self._x, self._y, self._goal[0] - self._x, self._goal[1] - self._y)


def _clip(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)
