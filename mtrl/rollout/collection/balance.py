"""Which worker hosts which lanes in continuous collection, by what a decision of each task costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from statistics import median

from mtrl.errors import ConfigError, EnvironmentFault

from ..workers.backend import Backend, Finished, call_all
from ..workers.calls import Measure
from ..workers.worker import LaneAssignment

UNKNOWN_SECONDS = 1e-3
"""Taken for every task when none could be measured."""


def measure(backend: Backend, count: int) -> list[float]:
    """Seconds of one decision of one copy of each of `count` tasks, [K], measured by the workers that will
    pay for it. A task that fails, or whose worker dies, is taken for a usual one.
    """
    costs: dict[int, float] = {}
    for k, outcome in enumerate(call_all(backend, [(None, Measure(k)) for k in range(count)])):
        if isinstance(outcome, Finished) and isinstance(outcome.value, float):
            costs[k] = outcome.value
        elif isinstance(outcome, Finished) and not isinstance(outcome.error, EnvironmentFault):
            assert outcome.error is not None, "a measurement gives a number or an error"
            raise outcome.error
    return completed(costs, count)


def completed(measured: Mapping[int, float], count: int) -> list[float]:
    """Costs of `count` tasks [K]; one that could not be measured gets the median of the others.

    Its lane will meet the same fault, and there it is counted.
    """
    usual = median(measured.values()) if measured else UNKNOWN_SECONDS
    return [measured.get(k, usual) for k in range(count)]


def balance(
    copies: Sequence[int], actors: int, step_seconds: Sequence[float] | None = None
) -> list[list[LaneAssignment]]:
    """Lanes of each actor, so that all actors need about equal time for one step of everything.

    `copies` [K] environments per task; `step_seconds` [K] is the measured cost of one decision of one
    copy, which differs tenfold between simulators; None counts copies. A lane that costs more than an
    actor's fair share is split by copies. Then the dearest piece goes to the least loaded actor, which
    keeps the largest load within 4/3 of the best possible (Graham 1969, theorem 2).
    """
    cost = [1.0] * len(copies) if step_seconds is None else list(step_seconds)
    if len(cost) != len(copies) or min(cost) <= 0 or min(copies) < 1 or actors < 1:
        raise ConfigError(
            "lanes need at least one copy per task, one positive cost per task and one actor; "
            f"got copies={list(copies)}, step_seconds={cost}, actors={actors}"
        )
    fair = sum(c * n for c, n in zip(cost, copies, strict=True)) / actors
    pieces: list[tuple[float, LaneAssignment]] = []
    for k, count in enumerate(copies):
        parts = min(count, max(1, ceil(cost[k] * count / fair - 1e-9)))
        edges = [count * part // parts for part in range(parts + 1)]
        for first, last in pairwise(edges):
            pieces.append((cost[k] * (last - first), LaneAssignment(k, last - first, first, count)))
    loads = [0.0] * actors
    shares: list[list[LaneAssignment]] = [[] for _ in range(actors)]
    for weight, piece in sorted(pieces, key=lambda p: (-p[0], p[1].task_index, p[1].first_copy)):
        lightest = loads.index(min(loads))
        loads[lightest] += weight
        shares[lightest].append(piece)
    return shares
