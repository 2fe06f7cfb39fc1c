"""Where things are in the point task; metres, x forward, y to the left.

The sizes make averaging fatal. A decision moves the point by at most 0.1 m in each dimension, and the
obstacle begins 0.43 m ahead of the start: four decisions of the mean of both ways, straight ahead, end
right before the obstacle, whereas four decisions of either way end 0.4 m to the side of it. The start zone is
small, so that the start does not reveal which way its demonstration took.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

START = (-0.65, 0.0)
"""Middle of the start zone."""
START_SPREAD = (0.005, 0.005)
"""Half sizes of the start zone in x and y."""
GOAL = (1.0, 0.0)
"""Middle of the goal zone."""
GOAL_SPREAD = 0.01
"""Half width of the goal zone in y."""
GOAL_RADIUS = 0.1
"""Distance to the goal that counts as reached."""
OBSTACLE_CENTRE = (0.0, 0.0)
"""Centre of the round obstacle."""
OBSTACLE_RADIUS = 0.22
"""Touching a disc of this radius ends the episode."""
ARENA = 1.5
"""The point stays within plus and minus this in x and y."""
SPEED = 2.0
"""Metres per second in one dimension at action 1."""
RATE_HZ = 20.0
"""Decisions per second."""
HORIZON = 100
"""Decisions per episode; the expert needs about 18."""


def side(path: npt.NDArray[np.floating]) -> Literal["left", "right"]:
    """Which way a path passed the obstacle: the sign of y where it first reaches the obstacle's centre line.

    `path`: positions [T, 2 or more], x and y first. A shorter path is classified by its
    end.
    """
    beyond = np.flatnonzero(path[:, 0] >= OBSTACLE_CENTRE[0])
    row = int(beyond[0]) if len(beyond) else len(path) - 1
    return "left" if path[row, 1] >= OBSTACLE_CENTRE[1] else "right"
