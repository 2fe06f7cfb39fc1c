"""A point mass in mazes: continuous control whose difficulty is the way, in four sizes."""

from .maze import MAZES, Maze
from .suite import SUITE

__all__ = ["MAZES", "SUITE", "Maze"]
