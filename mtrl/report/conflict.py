"""Which tasks pull apart: the cosines between task gradients that a run has recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import IntegrityError
from mtrl.reading import reading

from .curves import Curve, read_lines

COSINES = "cosines.jsonl"
"""One JSON object a line: step, part, tasks [K] and cosines [K][K] with null for pairs not measured."""

CELLS = 20_000_000
"""Most cosines of one part, over all records."""

Array = npt.NDArray[np.float64]


NOTHING = 0.005
"""Mean cosines nearer to 0 print as 0.00 and count as neither."""


@dataclass(frozen=True)
class Pair:
    """Two tasks and how their gradients lay to each other over the run."""

    first: str
    second: str
    cosine: float
    """Mean over the records that measured the pair."""
    below: int
    """Records in which it was below 0."""
    records: int
    """Records that measured the pair."""


@dataclass(frozen=True)
class Conflict:
    """All records of one part of an agent."""

    part: str
    """"critic", "actor" or what the agent calls it."""
    tasks: tuple[str, ...]
    mean: Array
    """[K, K], mean cosine over the run; NaN for pairs that were never measured."""
    pairs: tuple[Pair, ...]
    """Measured pairs, the lowest mean first."""
    share: Curve
    """Share of the measured pairs with a cosine below 0, by step."""
    smallest: Curve
    """The smallest cosine of a pair, by step."""

    @property
    def apart(self) -> tuple[Pair, ...]:
        """The pairs with a mean below 0."""
        return tuple(pair for pair in self.pairs if pair.cosine < -NOTHING)

    @property
    def verdict(self) -> str:
        """What is seen, in plain words."""
        if len(self.tasks) < 2:
            return "One task: there is no other whose gradient could pull against it."
        if not self.pairs:
            return "No pair of tasks was measured."
        worst, best, count = self.pairs[0], self.pairs[-1], len(self.pairs)
        measured = f"mean cosine {cosine(worst.cosine)}, below 0 in {_share(worst)}"
        if count == 1:
            verdict = "pull apart" if worst.cosine < -NOTHING else "do not pull apart on average"
            return f"{_both(worst)} {verdict}: {measured}."
        alike = f"Most alike are {_both(best)} with {cosine(best.cosine)}."
        if not self.apart:
            return (
                f"No pair of tasks pulls apart on average. Nearest to it: {_both(worst)}, {measured}. {alike}"
            )
        many = f"{len(self.apart):,} of {count:,} pairs of tasks pull apart on average"
        return f"{many}. The strongest conflict: {_both(worst)}, {measured}. {alike}"


@dataclass(frozen=True)
class Conflicts:
    """What `cosines.jsonl` holds."""

    parts: tuple[Conflict, ...]
    """By name of the part."""
    unreadable: tuple[int, ...]
    """Numbers of the lines that could not be read, from 1: the last one of a run that was cut off, say."""


@dataclass(frozen=True)
class _Record:
    step: float
    tasks: tuple[str, ...]
    cosines: Array


def find_conflicts(directory: Path) -> Conflicts | None:
    """Reads `cosines.jsonl` of a run; None where there is none."""
    path = directory / COSINES
    if not path.is_file():
        return None
    records: dict[str, list[_Record]] = {}
    unreadable: list[int] = []
    for number, row in read_lines(path):
        found = None
        with contextlib.suppress(IntegrityError), reading(path, "cosines in every line"):
            found = None if row is None else _parse(row)
        if found is None:
            unreadable.append(number)
        else:
            records.setdefault(found[0], []).append(found[1])
    with reading(path, f"at most {CELLS:,} cosines"):
        parts = tuple(_conflict(part, found) for part, found in sorted(records.items()))
    return Conflicts(parts, tuple(unreadable))


def _parse(row: dict[str, Any]) -> tuple[str, _Record] | None:
    step, part, tasks, cosines = (row.get(key) for key in ("step", "part", "tasks", "cosines"))
    if isinstance(step, bool) or not isinstance(step, int | float) or not isinstance(part, str):
        return None
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        return None
    matrix = np.array(cosines, dtype=np.float64)
    if not tasks or matrix.shape != (len(tasks), len(tasks)) or len(set(tasks)) < len(tasks):
        return None
    matrix[~np.isfinite(matrix)] = np.nan
    # rounding may leave a cosine a little outside
    return part, _Record(float(step), tuple(tasks), np.clip(matrix, -1.0, 1.0))


def _conflict(part: str, records: Sequence[_Record]) -> Conflict:
    tasks = tuple(dict.fromkeys(task for record in records for task in record.tasks))
    if len(records) * len(tasks) ** 2 > CELLS:
        raise ValueError(f"part {part!r} has {len(records)} records of {len(tasks)} tasks")
    stacked = np.full((len(records), len(tasks), len(tasks)), np.nan)
    for index, record in enumerate(records):
        places = [tasks.index(task) for task in record.tasks]
        stacked[index][np.ix_(places, places)] = record.cosines
    measured = np.isfinite(stacked)
    counts = measured.sum(axis=0)
    sums = np.where(measured, stacked, 0.0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    below = (measured & (np.nan_to_num(stacked) < 0)).sum(axis=0)
    upper = list(zip(*np.triu_indices(len(tasks), k=1), strict=True))
    pairs = [
        Pair(tasks[i], tasks[j], float(mean[i, j]), int(below[i, j]), int(counts[i, j]))
        for i, j in upper
        if counts[i, j]
    ]
    share, smallest = Curve("share of conflicting pairs"), Curve("smallest cosine")
    rows, columns = np.triu_indices(len(tasks), k=1)
    for record, matrix in zip(records, stacked, strict=True):
        found = matrix[rows, columns]
        found = found[np.isfinite(found)]
        if not len(found):
            continue
        for curve, value in ((share, float((found < 0).mean())), (smallest, float(found.min()))):
            curve.steps.append(record.step)
            curve.values.append(value)
    pairs.sort(key=lambda pair: pair.cosine)
    return Conflict(part, tasks, mean, tuple(pairs), share, smallest)


def cosine(value: float) -> str:
    """A cosine with two digits and its sign; 0.00 has none."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _both(pair: Pair) -> str:
    return f"{pair.first} and {pair.second}"


def _share(pair: Pair) -> str:
    return f"{pair.below} of {pair.records} record{'s' if pair.records != 1 else ''}"
