"""Intervals and comparisons for success rates and scores.

Every resampling function takes a numpy Generator, so that an interval is a function of the data and a
seed. Sources: Wilson 1927 (score interval); Agarwal et al. 2021, "Deep Reinforcement Learning at the
Edge of the Statistical Precipice" (interquartile mean, probability of improvement, stratified bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri

from mtrl.errors import ConfigError, OutOfRangeError

Scores = npt.NDArray[np.float64]
"""Scores of several runs on several tasks, shape [R, K]."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its confidence interval."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a success rate, (low, high) in [0, 1].

    With z the normal quantile of (1 + confidence) / 2, n trials and rate p, the centre is
    (p + z^2 / 2n) / (1 + z^2 / n) and the half width z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2).

    Raises:
        OutOfRangeError: no trials, successes outside 0..trials, or a confidence outside (0, 1).
    """
    _check_counts(successes, trials, confidence)
    return _wilson(successes / trials, float(trials), confidence)


def uniform_beta_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The equal-tailed credible interval of Beta(s + 1, n - s + 1): a uniform prior on the rate.

    Raises:
        OutOfRangeError: no trials, successes outside 0..trials, or a confidence outside (0, 1).
    """
    _check_counts(successes, trials, confidence)
    tail = (1.0 - confidence) / 2.0
    shape = (successes + 1.0, trials - successes + 1.0)
    return float(betaincinv(*shape, tail)), float(betaincinv(*shape, 1.0 - tail))


def mean_rate_interval(
    successes: Sequence[int], trials: Sequence[int], confidence: float = 0.95
) -> tuple[float, float]:
    """The Wilson interval of the mean success rate of K tasks, each task weighing the same.

    Uses the effective number of trials K^2 / sum_k(1 / n_k), which is K n for n trials each. It is
    slightly wide when tasks differ: a mean over fixed strata varies less than one over a pool.

    Raises:
        OutOfRangeError: no task, or counts that `wilson_interval` refuses.
    """
    if len(successes) != len(trials) or not trials:
        raise OutOfRangeError("trials", list(trials), "one entry for each of at least one task")
    for count, total in zip(successes, trials, strict=True):
        _check_counts(count, total, confidence)
    mean = math.fsum(count / total for count, total in zip(successes, trials, strict=True)) / len(trials)
    effective = len(trials) ** 2 / math.fsum(1.0 / total for total in trials)
    return _wilson(mean, effective, confidence)


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """Mean of the middle half of all scores, runs x tasks taken together.

    floor(n / 4) values are dropped at either end, as scipy.stats.trim_mean does.

    Raises:
        ConfigError: no scores, or a score that is not finite.
    """
    ordered = np.sort(_finite("scores", scores).ravel())
    if not len(ordered):
        raise ConfigError("an interquartile mean needs at least one score; got none")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def probability_of_improvement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Mean over tasks of P(X > Y) + P(X = Y) / 2 for a run X of `first` and a run Y of `second`.

    Both are [R, K] with the same K tasks; the numbers of runs may differ. 0.5 means no difference.

    Raises:
        ConfigError: wrong shapes, no runs, or a score that is not finite.
    """
    ours, theirs = _runs_by_tasks("first", first), _runs_by_tasks("second", second)
    if ours.shape[1] != theirs.shape[1]:
        raise ConfigError(
            f"both score tables need the same tasks; got {ours.shape[1]} and {theirs.shape[1]} columns"
        )
    difference = np.sign(ours[:, None, :] - theirs[None, :, :])
    return float(((difference + 1.0) / 2.0).mean())


def paired_bootstrap(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    generator: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean over tasks of (first - second) on common starts, with a percentile interval.

    `first[k][i]` and `second[k][i]` are the outcomes of the two policies on start i of task k. Starts
    are redrawn within each task, a pair staying together, so what a start contributes to both policies
    cancels. Without any difference between the pairs the interval has no width: the data hold no more.

    Raises:
        ConfigError: tasks or starts that do not pair up, or outcomes that are not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    _check_resampling(resamples, confidence)
    if len(first) != len(second) or not first:
        raise ConfigError(
            f"pairing needs the same tasks, at least one; got {len(first)} and {len(second)} tasks"
        )
    differences = [_paired_difference(k, first[k], second[k]) for k in range(len(first))]
    means = np.zeros(resamples)
    for difference in differences:
        rows = generator.integers(0, len(difference), size=(resamples, len(difference)))
        means += difference[rows].mean(axis=1) / len(differences)
    value = math.fsum(float(difference.mean()) for difference in differences) / len(differences)
    return _percentile(value, means, confidence)


def stratified_bootstrap(
    scores: npt.ArrayLike,
    statistic: Callable[[Scores], float],
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic of scores [R, K] with a percentile interval; runs are redrawn within each task.

    `statistic` maps a table [R, K] to a number, for example `interquartile_mean`.

    Raises:
        ConfigError: not a table, no runs, or a score that is not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    _check_resampling(resamples, confidence)
    table = _runs_by_tasks("scores", scores)
    runs, tasks = table.shape
    columns = np.arange(tasks)
    draws = np.empty(resamples)
    for index in range(resamples):
        draws[index] = statistic(table[generator.integers(0, runs, size=(runs, tasks)), columns])
    return _percentile(statistic(table), draws, confidence)


def _wilson(rate: float, trials: float, confidence: float) -> tuple[float, float]:
    z = float(ndtri(0.5 + confidence / 2.0))
    shrink = 1.0 + z * z / trials
    centre = (rate + z * z / (2.0 * trials)) / shrink
    half = z / shrink * math.sqrt(rate * (1.0 - rate) / trials + z * z / (4.0 * trials * trials))
    # at rates 0 and 1 the formula gives exactly 0 and 1 but for rounding
    low = 0.0 if rate <= 0.0 else max(0.0, centre - half)
    high = 1.0 if rate >= 1.0 else min(1.0, centre + half)
    return low, high


def _check_counts(successes: int, trials: int, confidence: float) -> None:
    if trials < 1:
        raise OutOfRangeError("trials", trials, "at least 1: a rate of no episodes is undefined")
    if not 0 <= successes <= trials:
        raise OutOfRangeError("successes", successes, f"0 to {trials}, the number of trials")
    _check_confidence(confidence)


def _check_resampling(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise OutOfRangeError("resamples", resamples, "at least 1")
    _check_confidence(confidence)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise OutOfRangeError("confidence", confidence, "between 0 and 1, for example 0.95")


def _finite(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ConfigError(
            f"{name} must be finite numbers; got {int((~np.isfinite(array)).sum())} that are not"
        )
    return array


def _runs_by_tasks(name: str, values: npt.ArrayLike) -> Scores:
    table = _finite(name, values)
    if table.ndim != 2 or 0 in table.shape:
        raise ConfigError(f"{name} must be a table [runs, tasks], neither empty; got shape {table.shape}")
    return table


def _paired_difference(task: int, first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    ours, theirs = _finite("first", first), _finite("second", second)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ConfigError(
            f"task {task}: pairing needs one outcome per common start, at least one; "
            f"got shapes {ours.shape} and {theirs.shape}"
        )
    return ours - theirs


def _percentile(value: float, draws: npt.NDArray[np.float64], confidence: float) -> Estimate:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))
