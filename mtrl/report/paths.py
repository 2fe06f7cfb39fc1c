"""Paths from above: which way each episode of the point task went, and what was planned beside what came."""

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


@dataclass(frozen=True)
class PlannedTask:
    """Episodes of one task in two dimensions of its state, and the plans on the way."""

    policy: str
    task: str
    dimensions: tuple[float, ...]
    """The two entries of the state that are drawn."""
    error: float
    """Distance of planned states to those that came, over how far these are from where they were planned."""
    paths: tuple[npt.NDArray[np.float64], ...]
    """One array [T, 2] per episode."""
    plans: tuple[npt.NDArray[np.float64], ...]
    """One array [H + 1, 2] per plan, of all episodes; it begins where it was made."""


def read_plans(path: Path) -> tuple[PlannedTask, ...]:
    """Reads `plans/LABEL.json`; IntegrityError that names file and field where it is not that."""
    record = Record(path, "", read_json(path))
    listed = record.fields.get("tasks")
    with reading(path, "a policy's plans by task, lists of [x, y]"):
        if not isinstance(listed, list):
            record.refuse("tasks", "a list of tasks")
        return tuple(
            _planned(record.text("policy"), Record(path, f"tasks[{k}]", entry))
            for k, entry in enumerate(listed)
        )


def _planned(policy: str, record: Record) -> PlannedTask:
    episodes = record.fields.get("episodes")
    if not isinstance(episodes, list) or not episodes:
        record.refuse("episodes", "a list of episodes")
    played = [Record(record.path, f"{record.place}.episodes[{e}]", one) for e, one in enumerate(episodes)]
    return PlannedTask(
        policy,
        record.text("task"),
        record.numbers("dimensions"),
        record.number("error", minimum=0.0),
        tuple(_points(one, [one.fields.get("path")], "path")[0] for one in played),
        tuple(plan for one in played for plan in _points(one, one.fields.get("plans"), "plans")),
    )


def _points(record: Record, listed: object, name: str) -> list[npt.NDArray[np.float64]]:
    if not isinstance(listed, list):
        record.refuse(name, "a list of lists of [x, y]")
    found = [np.array(points, dtype=np.float64) for points in listed]
    if any(one.ndim != 2 or one.shape[1:] != (2,) or not len(one) for one in found) or not all(
        np.isfinite(one).all() for one in found
    ):
        record.refuse(name, "lists of [x, y], none empty, all finite")
    return found


def _policy(record: Record) -> PolicyPaths:
    place = record.record("obstacle")
    obstacle = Obstacle(place.number("x"), place.number("y"), place.number("radius", minimum=0.0))
    paths = tuple(_points(record, record.fields.get("paths"), "paths"))
    return PolicyPaths(record.text("policy"), paths, obstacle)


def _closest(path: npt.NDArray[np.float64], point: npt.NDArray[np.float64]) -> float:
    """Shortest distance from `point` to the segments of a path."""
    if len(path) == 1:
        return float(np.hypot(*(path[0] - point)))
    start, step = path[:-1], np.diff(path, axis=0)
    squared = np.maximum((step**2).sum(axis=1), 1e-30)
    along = np.clip(((point - start) * step).sum(axis=1) / squared, 0.0, 1.0)
    return float(np.hypot(*(start + along[:, None] * step - point).T).min())
