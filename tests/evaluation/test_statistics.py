"""Intervals and comparisons, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.evaluation import (
    Estimate,
    mean_rate_interval,
    paired_differences,
    uniform_beta_interval,
    wilson_interval,
)
from mtrl.evaluation.aggregates import Scores, independent_bootstrap, mean_score, stratified_bootstrap
from mtrl.evaluation.statistics import bootstrap_means

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilson_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    expected = stats.binomtest(*count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(*count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(counts, st.sampled_from([0.5, 0.95, 0.999]))
def test_uniform_beta_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    successes, trials = count
    posterior = stats.beta(successes + 1, trials - successes + 1)
    expected = posterior.ppf((1 - confidence) / 2), posterior.ppf((1 + confidence) / 2)
    assert uniform_beta_interval(successes, trials, confidence) == pytest.approx(expected, abs=1e-9)


def test_wilson_by_hand() -> None:
    # one success in one trial: low = 1 / (1 + z^2), z = 1.959964
    assert wilson_interval(1, 1) == pytest.approx((1 / (1 + 1.959963984540054**2), 1.0), abs=1e-12)
    # z = 1: confidence 0.6827, 5 of 10: 0.5 +- sqrt(0.025 + 0.0025) / 1.1
    one_sigma = 2 * stats.norm.cdf(1) - 1
    half = math.sqrt(0.0275) / 1.1
    assert wilson_interval(5, 10, one_sigma) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)


def test_uniform_beta_by_hand() -> None:
    # no success in one trial: Beta(1, 2) has the distribution function 1 - (1 - x)^2
    assert uniform_beta_interval(0, 1) == pytest.approx(
        (1 - math.sqrt(0.975), 1 - math.sqrt(0.025)), abs=1e-12
    )


def test_wilson_at_the_ends_is_exact() -> None:
    assert wilson_interval(0, 50)[0] == 0.0
    assert wilson_interval(50, 50)[1] == 1.0
    low, high = wilson_interval(50, 50)
    assert 0 < low < high


@pytest.mark.parametrize("interval", [wilson_interval, uniform_beta_interval])
def test_impossible_counts_are_refused(interval: object) -> None:
    assert callable(interval)
    with pytest.raises(OutOfRangeError, match=r"trials=0 .* at least 1"):
        interval(0, 0)
    with pytest.raises(OutOfRangeError, match=r"successes=6 .* 0 to 5"):
        interval(6, 5)
    with pytest.raises(OutOfRangeError, match="successes=-1"):
        interval(-1, 5)
    with pytest.raises(OutOfRangeError, match=r"confidence=1\.0"):
        interval(1, 5, 1.0)


def test_mean_of_equal_tasks_is_the_pooled_interval() -> None:
    assert mean_rate_interval([3, 9], [10, 10]) == pytest.approx(wilson_interval(12, 20), abs=1e-12)


def test_mean_of_unequal_tasks_weighs_tasks_alike() -> None:
    # rates 0.5 and 1: mean 0.75; effective trials 4 / (1/10 + 1/40) = 32
    assert mean_rate_interval([5, 40], [10, 40]) == pytest.approx(wilson_interval(24, 32), abs=1e-12)
    with pytest.raises(OutOfRangeError):
        mean_rate_interval([], [])
    with pytest.raises(OutOfRangeError):
        mean_rate_interval([1], [0])


def test_a_paired_bootstrap_cancels_what_pairs_share() -> None:
    # the starts differ wildly, the policies by exactly 0.25 on each: no uncertainty remains
    hardness = np.random.default_rng(0).normal(size=30)
    found = paired_differences([hardness + 0.25], [hardness], np.random.default_rng(1), resamples=500).mean
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_a_paired_bootstrap_weighs_tasks_alike_and_repeats_itself() -> None:
    first, second = [[1.0, 1.0], [0.0] * 10], [[0.0, 0.0], [0.0] * 10]
    found = paired_differences(first, second, np.random.default_rng(3)).mean
    assert found.value == 0.5
    assert found == paired_differences(first, second, np.random.default_rng(3)).mean


def test_a_paired_bootstrap_width_agrees_with_the_normal_approximation() -> None:
    generator = np.random.default_rng(5)
    first, second = generator.integers(0, 2, (2, 400)).astype(float)
    found = paired_differences([first], [second], np.random.default_rng(6), resamples=4000).mean
    half = 1.959964 * (first - second).std() / math.sqrt(400)
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_a_single_outcome_has_no_interval_and_neither_has_what_it_is_part_of() -> None:
    found = bootstrap_means([[3.0], [1.0, 2.0]], np.random.default_rng(0), resamples=100)
    assert found.tasks[0] == Estimate(3.0, 3.0, 3.0, has_interval=False)
    assert found.tasks[1].has_interval and found.tasks[1].low < 1.5 < found.tasks[1].high
    assert (found.mean.value, found.mean.has_interval) == (2.25, False)
    assert bootstrap_means([[2.0, 2.0]], np.random.default_rng(0), resamples=100).mean.has_interval
    # one pair in favour of the first policy proves nothing
    pair = paired_differences([[1.0]], [[0.0]], np.random.default_rng(0), resamples=100).mean
    assert pair.value == 1.0 and not pair.excludes(0.0)


def test_a_single_run_has_no_interval() -> None:
    one, several = np.array([[0.2, 0.8]]), np.array([[0.1, 0.3], [0.5, 0.2]])
    draw = {"generator": np.random.default_rng(0), "resamples": 50}
    assert not stratified_bootstrap(one, mean_score, **draw).has_interval  # type: ignore[arg-type]
    assert stratified_bootstrap(several, mean_score, **draw).has_interval  # type: ignore[arg-type]

    def difference(first: Scores, second: Scores) -> float:
        return mean_score(first) - mean_score(second)

    assert not independent_bootstrap(several, one, difference, **draw).has_interval  # type: ignore[arg-type]


def test_a_paired_bootstrap_refuses_what_does_not_pair() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="1 and 2 tasks"):
        paired_differences([[1.0]], [[1.0], [1.0]], generator)
    with pytest.raises(ConfigError, match="task 0: pairing needs one outcome per common start"):
        paired_differences([[1.0, 0.0]], [[1.0]], generator)
    with pytest.raises(ConfigError, match="finite"):
        paired_differences([[math.inf]], [[1.0]], generator)
    with pytest.raises(OutOfRangeError, match="resamples=0"):
        paired_differences([[1.0]], [[1.0]], generator, resamples=0)
