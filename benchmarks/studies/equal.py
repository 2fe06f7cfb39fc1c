"""What a study's page compares beyond final scores: returns with intervals, equal steps, equal minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtrl.evaluation import Estimate
from mtrl.tasks import Score

from .record import Finished, TaskOutcome

RESAMPLES = 5000

Column = Sequence[Mapping[str, TaskOutcome]]
"""A method's runs, each task -> outcome."""


def return_interval(
    runs: Sequence[Sequence[float]], generator: np.random.Generator, confidence: float = 0.95
) -> Estimate:
    """Mean over runs of their mean returns [S each], with a percentile interval.

    Runs are redrawn where there are two or more, and within each the starts.
    """
    table = [np.asarray(run, dtype=np.float64) for run in runs]
    value = float(np.mean([run.mean() for run in table]))
    draws = np.zeros(RESAMPLES)
    for _ in table:
        chosen = generator.integers(0, len(table), RESAMPLES)
        for number, run in enumerate(table):
            rows = np.flatnonzero(chosen == number)
            starts = generator.integers(0, len(run), (len(rows), len(run)))
            draws[rows] += run[starts].mean(axis=1) / len(table)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Moment:
    """A run at one of its evaluations."""

    step: float
    minutes: float
    """Processor minutes of collecting and learning until then."""
    scores: Mapping[str, float]
    """Task -> mean normalised score."""


def at_equal_cost(
    reference: Sequence[Finished], rival: Sequence[Finished], scores: Mapping[str, Score], cost: str
) -> tuple[list[Moment], list[Moment]] | None:
    """Pairs of runs of one seed: the reference at its end, the rival at its first evaluation that had cost
    as much. Where the rival never gets there, it is taken at its end, and the reference at its last
    evaluation that had cost no more. `cost` is counted in "step" or "minutes".

    None when no pair has a curve.
    """
    rivals = {run.seed: run for run in rival}
    found: tuple[list[Moment], list[Moment]] = ([], [])
    for run in reference:
        other = rivals.get(run.seed)
        if other is None or not run.curve or not other.curve:
            continue
        budget = min(run.curve[-1][cost], other.curve[-1][cost])
        ours = [entry for entry in run.curve if entry[cost] <= budget] or list(run.curve[:1])
        theirs = [entry for entry in other.curve if entry[cost] >= budget]
        found[0].append(_moment(ours[-1], scores))
        found[1].append(_moment(theirs[0], scores))
    return found if found[0] else None


def _moment(entry: Mapping[str, float], scores: Mapping[str, Score]) -> Moment:
    return Moment(
        entry["step"],
        entry["minutes"],
        {
            name: entry[f"evaluation_success/{name}"]
            if score.kind == "success"
            else score.normalise(entry[f"evaluation_return/{name}"], False)
            for name, score in scores.items()
        },
    )
