"""The point task's image: which way each episode went round the obstacle."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl.errors import IntegrityError
from mtrl.evaluation.records import Record, read_json
from mtrl.reading import reading


class Side(Enum):
    """On which side a path passes the obstacle, seen in the direction of travel."""

    LEFT = "left"
    RIGHT = "right"
    STOPPED = "did not pass"


@dataclass(frozen=True)
class Obstacle:
    """A disc."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class PolicyPaths:
    """All episodes of one policy."""

    policy: str
    paths: tuple[npt.NDArray[np.float64], ...]
    """One array [T, 2] of x and y per episode."""
    obstacle: Obstacle

    @property
    def sides(self) -> tuple[Side, ...]:
        """One per path."""
        return tuple(side_of(path, self.obstacle) for path in self.paths)

    def count(self, side: Side) -> int:
        """Paths that went this way."""
        return Counter(self.sides)[side]


def side_of(path: npt.NDArray[np.float64], obstacle: Obstacle) -> Side:
    """Left or right of the line from the path's start through the obstacle's centre.

    The side is read where the path comes level with the centre. A path that never does, or crosses the
    disc, did not pass.
    """
    centre = np.array([obstacle.x, obstacle.y])
    ahead = centre - path[0]
    distance = float(np.hypot(*ahead))
    if distance == 0.0 or _closest(path, centre) < obstacle.radius * 0.98:
        return Side.STOPPED
    ahead = ahead / distance
    progress = (path - centre) @ ahead
    level = np.flatnonzero(progress >= 0.0)
    if not len(level):
        return Side.STOPPED
    offset = path[level[0]] - centre
    return Side.LEFT if ahead[0] * offset[1] - ahead[1] * offset[0] > 0 else Side.RIGHT


def read_paths(path: Path) -> tuple[PolicyPaths, ...]:
    """Reads `point_paths.json`: a list of objects with policy, paths and obstacle.

    Raises:
        IntegrityError: not that; the message names the file and the field.
    """
    content = read_json(path)
    with reading(path, "a list with one object per policy, whose paths must be lists of [x, y]"):
        if not isinstance(content, list):
            raise IntegrityError(f"{path} must be a list with one object per policy")
        return tuple(_policy(Record(path, f"[{index}]", entry)) for index, entry in enumerate(content))


def _policy(record: Record) -> PolicyPaths:
    place = record.record("obstacle")
    obstacle = Obstacle(place.number("x"), place.number("y"), place.number("radius", minimum=0.0))
    listed = record.fields.get("paths")
    if not isinstance(listed, list):
        record.refuse("paths", "a list of paths")
    paths = tuple(np.array(path, dtype=np.float64) for path in listed)
    if any(path.ndim != 2 or path.shape[1:] != (2,) or not len(path) for path in paths) or not all(
        np.isfinite(path).all() for path in paths
    ):
        record.refuse("paths", "a list of lists of [x, y], none empty, all finite")
    return PolicyPaths(record.text("policy"), paths, obstacle)


def _closest(path: npt.NDArray[np.float64], point: npt.NDArray[np.float64]) -> float:
    """Shortest distance from `point` to the segments of a path."""
    if len(path) == 1:
        return float(np.hypot(*(path[0] - point)))
    start, step = path[:-1], np.diff(path, axis=0)
    squared = np.maximum((step**2).sum(axis=1), 1e-30)
    along = np.clip(((point - start) * step).sum(axis=1) / squared, 0.0, 1.0)
    return float(np.hypot(*(start + along[:, None] * step - point).T).min())
