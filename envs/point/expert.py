"""The expert of the point task: it tosses a coin, then rounds the obstacle on that side."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers

from . import geometry

CLEARANCE = 0.22
"""Metres between the obstacle and the circle that the expert rounds it on."""
SLOWING = 0.1
"""Distance to the goal in metres below which it slows down."""


class PointExpert:
    """Left or right with probability 1/2 per episode, whatever the state; full speed until the goal.

    It heads for the tangent of a circle around the obstacle, follows the circle, and leaves it as soon as
    the goal is in sight, so the two ways differ from the first action on.
    """

    def __init__(self) -> None:
        self._side = 1.0

    def reset(self, generator: np.random.Generator) -> None:
        """Draws the side for this episode."""
        self._side = 1.0 if generator.random() < 0.5 else -1.0

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        """The clean velocity [2]; its larger component is 1 in magnitude on the way."""
        x, y, goal_x, goal_y = (float(value) for value in observation["state"])
        goal_distance = math.hypot(goal_x, goal_y)
        to_goal = math.atan2(goal_y, goal_x)
        from_centre_x, from_centre_y = x - geometry.OBSTACLE_CENTRE[0], y - geometry.OBSTACLE_CENTRE[1]
        distance = math.hypot(from_centre_x, from_centre_y)
        circle = geometry.OBSTACLE_RADIUS + CLEARANCE
        to_centre = math.atan2(-from_centre_y, -from_centre_x)
        # angle between the centre and the tangent; more than a right angle, that is outwards, on the inside
        if distance >= circle:
            opening = math.asin(circle / distance)
        else:
            opening = math.pi / 2 + min(1.0, (circle - distance) / CLEARANCE) * math.pi / 4
        tangent = to_centre + self._side * opening
        past = self._side * _turn(tangent, to_goal) >= 0.0
        if past or goal_distance <= geometry.GOAL_RADIUS:
            heading = to_goal
        else:
            heading = tangent
        forward, leftward = math.cos(heading), math.sin(heading)
        speed = min(1.0, goal_distance / SLOWING) / max(abs(forward), abs(leftward))
        return np.array([speed * forward, speed * leftward], dtype=np.float32)


def _turn(start: float, end: float) -> float:
    """The turn from one heading to another, in (-pi, pi]."""
    return math.pi - (math.pi - (end - start)) % (2 * math.pi)
