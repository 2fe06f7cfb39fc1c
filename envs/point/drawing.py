"""A picture of the point task from above, without a graphics library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import geometry

SIZE = 300
"""Height and width in pixels."""
VIEW = 1.2
"""Half of the shown width in metres."""
BACKGROUND = (245, 245, 245)
OBSTACLE = (90, 90, 90)
GOAL = (60, 170, 90)
POINT = (200, 60, 50)


def draw(point: tuple[float, float], goal: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """RGB [300, 300, 3]; x to the right, y up. `point` and `goal` are positions in metres."""
    frame = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    frame[...] = BACKGROUND
    across = np.linspace(-VIEW, VIEW, SIZE)
    x, y = np.meshgrid(across, -across)
    discs = (
        (geometry.OBSTACLE_CENTRE, geometry.OBSTACLE_RADIUS, OBSTACLE),
        (goal, geometry.GOAL_RADIUS, GOAL),
        (point, 0.03, POINT),
    )
    for centre, radius, colour in discs:
        frame[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = colour
    return frame
