"""Learning curves from the metrics files of a run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtrl.panels import Panel, read_panels
from mtrl.reading import parse_json

STEP_KEYS = ("step", "steps", "update", "updates", "environment_steps")
"""Fields that say where on the horizontal axis a line stands, first match; otherwise lines are counted."""

DRAWN_POINTS = 400
"""Points kept per curve; more cannot be seen and only make the page heavy."""


@dataclass
class Curve:
    """One metric over training; points where it was not a finite number are left out."""

    name: str
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    dropped: int = 0
    """Lines in which it stood as null, NaN or infinite."""

    def thinned(self, points: int = DRAWN_POINTS) -> tuple[list[float], list[float]]:
        """At most `points` points: first and last, and each stretch's lowest and highest between."""
        count = len(self.values)
        if count <= points:
            return self.steps, self.values
        stretches = points // 2 - 1
        keep = {0, count - 1}
        for index in range(stretches):
            stretch = range(count * index // stretches, count * (index + 1) // stretches)
            keep |= {min(stretch, key=self.values.__getitem__), max(stretch, key=self.values.__getitem__)}
        kept = sorted(keep)
        return [self.steps[i] for i in kept], [self.values[i] for i in kept]


@dataclass(frozen=True)
class Curves:
    """All curves of one metrics file."""

    source: str
    """Path of the file inside the run directory."""
    step_name: str
    """What the horizontal axis counts."""
    curves: tuple[Curve, ...]
    """Plain names before grouped ones ("loss/critic"), in each success, loss and return first."""
    unreadable: tuple[int, ...]
    """Numbers of the lines that could not be read, from 1: the last one of a run that was cut off, say."""
    panels: tuple[Panel, ...] = ()
    """The pictures that the agent asks for."""


def find_curves(directory: Path) -> tuple[Curves, ...]:
    """The curves of `metrics.jsonl` and of `*/metrics.jsonl` one level down, by path."""
    files = [directory / "metrics.jsonl", *sorted(directory.glob("*/metrics.jsonl"))]
    return tuple(
        read_curves(file, file.relative_to(directory).as_posix()) for file in files if file.is_file()
    )


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Number, from 1, and JSON object of every line that is not blank; None for one that holds no object."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            row = None
            if line.strip():
                with contextlib.suppress(ValueError, RecursionError):
                    row = parse_json(line, finite=False)
                yield number, row if isinstance(row, dict) else None


def read_curves(path: Path, source: str) -> Curves:
    """Reads a file of one JSON object a line; nested objects give names such as "loss/critic". The
    panels of its agent are read from beside it.
    """
    curves: dict[str, Curve] = {}
    unreadable: list[int] = []
    step_name = "line"
    for number, row in read_lines(path):
        if row is None:
            unreadable.append(number)
            continue
        key = next((name for name in STEP_KEYS if _is_number(row.get(name))), None)
        step_name = key or step_name
        step = float(row[key]) if key else float(number)
        for name, value in _numbers(row):
            if name in STEP_KEYS:
                continue
            curve = curves.setdefault(name, Curve(name))
            if math.isfinite(value) and math.isfinite(step):
                curve.steps.append(step)
                curve.values.append(value)
            else:
                curve.dropped += 1
    ordered = sorted(
        curves.values(), key=lambda curve: (curve.name.count("/"), _interest(curve.name), curve.name)
    )
    return Curves(source, step_name, tuple(ordered), tuple(unreadable), read_panels(path.parent))


def _numbers(row: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}/")
        elif value is None:
            # strict JSON has no NaN, so writers put null
            yield f"{prefix}{key}", math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interest(name: str) -> int:
    words = ("success", "loss", "return", "score", "error")
    return next((index for index, word in enumerate(words) if word in name.lower()), len(words))
