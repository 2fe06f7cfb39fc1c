"""Intervals of success rates and of means over episodes, and paired differences.

Every resampling function takes a numpy Generator, so that an interval is a function of the data and a
seed. Source: Wilson 1927 (score interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from mtrl.errors import ConfigError, OutOfRangeError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its confidence interval."""

    value: float
    low: float
    """Lower end; the value itself without an interval."""
    high: float
    """Upper end; the value itself without an interval."""
    has_interval: bool = True
    """False where a single outcome stands behind the value, or behind a part of it: redrawing one outcome
    gives itself, which says nothing about how outcomes vary."""

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval; its ends belong to it. Never without an interval."""
        return self.has_interval and not self.low <= value <= self.high


@dataclass(frozen=True)
class TaskMeans:
    """Means of several tasks and the mean of those, from one set of resamples."""

    mean: Estimate
    tasks: tuple[Estimate, ...]


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
    return float(scipy.special.betaincinv(*shape, tail)), float(scipy.special.betaincinv(*shape, 1.0 - tail))


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
    # K^2 / sum_k(1 / n_k): the variance of the mean of K rates equals that of one rate of so many trials
    effective = len(trials) ** 2 / math.fsum(1.0 / total for total in trials)
    return _wilson(mean, effective, confidence)


def bootstrap_means(
    samples: Sequence[npt.ArrayLike],
    generator: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> TaskMeans:
    """Mean of every task's episodes and of those means, with percentile intervals.

    `samples[k]` are the outcomes of task k, shape [n_k]; they are redrawn within each task. A task with one
    outcome has no interval, and neither has a mean that such a task is part of.

    Raises:
        ConfigError: no task, a task without outcomes, or outcomes that are not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    check_resampling(resamples, confidence)
    if not samples:
        raise ConfigError("a mean over tasks needs at least one task; got none")
    outcomes = [_outcomes(k, sample) for k, sample in enumerate(samples)]
    means = np.zeros(resamples)
    found = []
    for outcome in outcomes:
        rows = generator.integers(0, len(outcome), size=(resamples, len(outcome)))
        draws = outcome[rows].mean(axis=1)
        means += draws / len(outcomes)
        found.append(percentile_estimate(float(outcome.mean()), draws, confidence, len(outcome)))
    value = math.fsum(estimate.value for estimate in found) / len(found)
    return TaskMeans(percentile_estimate(value, means, confidence, min(map(len, outcomes))), tuple(found))


def paired_differences(
    first: Sequence[npt.ArrayLike],
    second: Sequence[npt.ArrayLike],
    generator: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> TaskMeans:
    """Means of (first - second) on common starts, per task and over tasks, with percentile intervals.

    `first[k][i]` and `second[k][i]` are the outcomes of the two policies on start i of task k. Starts
    are redrawn within each task, a pair staying together, so what a start contributes to both policies
    cancels. Without any difference between the pairs the interval has no width: the data hold no more. A
    single pair has no interval.

    Raises:
        ConfigError: tasks or starts that do not pair up, or outcomes that are not finite.
        OutOfRangeError: fewer than one resample, or a confidence outside (0, 1).
    """
    check_resampling(resamples, confidence)
    if len(first) != len(second) or not first:
        raise ConfigError(
            f"pairing needs the same tasks, at least one; got {len(first)} and {len(second)} tasks"
        )
    differences = [_paired_difference(k, first[k], second[k]) for k in range(len(first))]
    return bootstrap_means(differences, generator, resamples, confidence)


def percentile_estimate(value: float, draws: Array, confidence: float, outcomes: int) -> Estimate:
    """The percentile interval of resampled statistics `draws` [B] around the point estimate `value`.

    `outcomes` is how many were redrawn, in the smallest group that is redrawn by itself; fewer than two
    give no interval.
    """
    if outcomes < 2:
        return Estimate(value, value, value, has_interval=False)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))


def finite_array(name: str, values: npt.ArrayLike) -> Array:
    """`values` as float64; raises ConfigError when one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ConfigError(
            f"{name} must be finite numbers; got {int((~np.isfinite(array)).sum())} that are not"
        )
    return array


def check_confidence(confidence: float) -> None:
    """Raises OutOfRangeError for a level outside (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise OutOfRangeError("confidence", confidence, "between 0 and 1, for example 0.95")


def check_resampling(resamples: int, confidence: float) -> None:
    """Raises OutOfRangeError for fewer than one resample or a level outside (0, 1)."""
    if resamples < 1:
        raise OutOfRangeError("resamples", resamples, "at least 1")
    check_confidence(confidence)


def _wilson(rate: float, trials: float, confidence: float) -> tuple[float, float]:
    z = float(scipy.special.ndtri(0.5 + confidence / 2.0))
    # Wilson 1927: (p + z^2 / 2n) / (1 + z^2 / n), half width z / (1 + z^2 / n) sqrt(p(1-p)/n + z^2 / 4n^2)
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
    check_confidence(confidence)


def _outcomes(task: int, values: npt.ArrayLike) -> Array:
    array = finite_array(f"outcomes of task {task}", values)
    if array.ndim != 1 or not len(array):
        raise ConfigError(f"task {task}: a mean needs a list of at least one outcome; got {array.shape}")
    return array


def _paired_difference(task: int, first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    ours, theirs = finite_array("first", first), finite_array("second", second)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ConfigError(
            f"task {task}: pairing needs one outcome per common start, at least one; "
            f"got shapes {ours.shape} and {theirs.shape}"
        )
    return ours - theirs
