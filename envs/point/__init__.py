"""A point that must pass an obstacle left or right: the smallest task whose demonstrations have two modes."""

from .geometry import GOAL, OBSTACLE_CENTRE, OBSTACLE_RADIUS, START, side
from .suite import SUITE

__all__ = ["GOAL", "OBSTACLE_CENTRE", "OBSTACLE_RADIUS", "START", "SUITE", "side"]
