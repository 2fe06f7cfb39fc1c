"""Aggregates over several runs of a method, as Agarwal et al. 2021 recommend.

Source: "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (interquartile mean,
optimality gap, probability of improvement, performance profiles, stratified bootstrap). A run is one
training with its own seed; its score on a task is the mean over that task's episodes.

The paper trains every task by itself, so its bootstrap redraws runs within each task. A multi-task run is
one training for all tasks: its scores rise and fall together, and only redrawing whole runs says what
another set of seeds would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError

from .statistics import Array, Estimate, check_resampling, finite_array, percentile_estimate

Scores = npt.NDArray[np.float64]
"""Normalised scores of several runs on several tasks, shape [R, K]."""


def mean_score(scores: npt.ArrayLike) -> float:
    """Mean over tasks of the mean over runs.

    Raises:
        ConfigError: not a table, no runs, or a score that is not finite.
    """
    return float(_runs_by_tasks("scores", scores).mean(axis=0).mean())


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Mean of the middle half of all scores, runs x tasks taken together.

    floor(n / 4) values are dropped at either end, as scipy.stats.trim_mean does.

    Raises:
        ConfigError: no scores, or a score that is not finite.
    """
    ordered = np.sort(finite_array("scores", scores).ravel())
    if not len(ordered):
        raise ConfigError("an interquartile mean needs at least one score; got none")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def optimality_gap(scores: npt.ArrayLike, target: float = 1.0) -> float:
    """How far runs fall short of `target` on average: target - mean(min(score, target)).

    What exceeds the target does not make up for what falls short of it.

    Raises:
        ConfigError: no scores, or a score that is not finite.
    """
    table = finite_array("scores", scores)
    if not table.size:
        raise ConfigError("an optimality gap needs at least one score; got none")
    # the target less the mean of min(score, target)
    return target - float(np.minimum(table, target).mean())


def probability_of_improvement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Mean over tasks of P(X > Y) + P(X = Y) / 2 for a run X of `first` and a run Y of `second`.

    Both are [R, K] with the same K tasks; the numbers of runs may differ. 0.5 means no difference.

    Raises:
        ConfigError: wrong shapes, no runs, or a score that is not finite.
    """
    ours, theirs = _same_tasks(first, second)
    # P(X > Y) + P(X = Y) / 2 over all pairs of runs, then the mean over tasks
    difference = np.sign(ours[:, None, :] - theirs[None, :, :])
    return float(((difference + 1.0) / 2.0).mean())


def performance_profile(scores: npt.ArrayLike, thresholds: npt.ArrayLike) -> Array:
    """The share of all runs x tasks that score above each threshold; [T] in the thresholds' order.

    Raises:
        ConfigError: not a table, no runs, or a number that is not finite.
    """
    table, levels = _runs_by_tasks("scores", scores), finite_array("thresholds", thresholds)
    return np.asarray((table.ravel()[None, :] > levels.ravel()[:, None]).mean(axis=1))


def performance_profile_band(
    scores: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
) -> tuple[Array, Array]:
    """The pointwise percentile band (low [T], high [T]) of a profile; runs are redrawn within each task.

    Raises:
        ConfigError: not a table, no runs, or a number that is not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    check_resampling(resamples, confidence)
    table = _runs_by_tasks("scores", scores)
    draws = np.stack(
        [performance_profile(_redrawn(table, generator, False), thresholds) for _ in range(resamples)]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    return low, high


def stratified_bootstrap(
    scores: npt.ArrayLike,
    statistic: Callable[[Scores], float],
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
    *,
    whole_runs: bool = False,
) -> Estimate:
    """A statistic of scores [R, K] with a percentile interval; runs are redrawn within each task.

    `statistic` maps a table [R, K] to a number, for example `interquartile_mean`. `whole_runs` redraws runs
    with all their tasks instead, for runs that trained one policy on all of them. A single run gives no
    interval.

    Raises:
        ConfigError: not a table, no runs, or a score that is not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    tables = (_runs_by_tasks("scores", scores),)
    return _bootstrap(tables, statistic, generator, resamples, confidence, whole_runs)


def independent_bootstrap(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    statistic: Callable[[Scores, Scores], float],
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
    *,
    whole_runs: bool = False,
) -> Estimate:
    """A statistic of two methods' scores [R, K] and [S, K]; each method's runs are redrawn by themselves.

    `statistic` maps both tables to a number, for example `probability_of_improvement`. Otherwise as
    `stratified_bootstrap`; raises ConfigError for different tasks too.
    """
    tables = _same_tasks(first, second)
    return _bootstrap(tables, statistic, generator, resamples, confidence, whole_runs)


def _bootstrap(
    tables: Sequence[Scores],
    statistic: Callable[..., float],
    generator: np.random.Generator,
    resamples: int,
    confidence: float,
    whole_runs: bool,
) -> Estimate:
    check_resampling(resamples, confidence)
    draws = np.empty(resamples)
    for index in range(resamples):
        draws[index] = statistic(*(_redrawn(table, generator, whole_runs) for table in tables))
    return percentile_estimate(statistic(*tables), draws, confidence, min(map(len, tables)))


def _redrawn(table: Scores, generator: np.random.Generator, whole_runs: bool) -> Scores:
    runs, tasks = table.shape
    if whole_runs:
        return table[generator.integers(0, runs, size=runs)]
    return table[generator.integers(0, runs, size=(runs, tasks)), np.arange(tasks)]


def _same_tasks(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Scores, Scores]:
    ours, theirs = _runs_by_tasks("first", first), _runs_by_tasks("second", second)
    if ours.shape[1] != theirs.shape[1]:
        raise ConfigError(
            f"both score tables need the same tasks; got {ours.shape[1]} and {theirs.shape[1]} columns"
        )
    return ours, theirs


def _runs_by_tasks(name: str, values: npt.ArrayLike) -> Scores:
    table = finite_array(name, values)
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"{name} must be a table [runs, tasks], neither empty; got shape {table.shape}")
    return table
