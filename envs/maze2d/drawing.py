"""A picture of a maze from above, without a graphics library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import dynamics
from .maze import Maze

SCALE = 32
"""Pixels per metre."""
FREE = (245, 245, 245)
WALL = (90, 90, 90)
REACHED = (200, 230, 205)
GOAL = (60, 170, 90)
BALL = (200, 60, 50)


def draw(maze: Maze, ball: tuple[float, float], goal: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """RGB [32 rows, 32 columns, 3]; x to the right, y up. Around the goal: where it counts as reached.

    `ball` and `goal` are positions in metres.
    """
    wall = np.array([[letter == "#" for letter in row] for row in maze.rows])
    wall = wall.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    frame = np.empty((*wall.shape, 3), dtype=np.uint8)
    frame[...] = FREE
    height, width = maze.shape
    across = (np.arange(width * SCALE) + 0.5) / SCALE - width / 2
    up = height / 2 - (np.arange(height * SCALE) + 0.5) / SCALE
    x, y = np.meshgrid(across, up)
    frame[_disc(x, y, goal, dynamics.GOAL_RADIUS)] = REACHED
    frame[wall] = WALL
    frame[_disc(x, y, goal, dynamics.RADIUS)] = GOAL
    frame[_disc(x, y, ball, dynamics.RADIUS)] = BALL
    return frame


def _disc(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], centre: tuple[float, float], radius: float
) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    return inside
