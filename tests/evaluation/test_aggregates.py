"""Aggregates over runs, against scipy, by hand, and against rliable."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.evaluation import (
    independent_bootstrap,
    interquartile_mean,
    mean_score,
    optimality_gap,
    performance_profile,
    performance_profile_band,
    probability_of_improvement,
    stratified_bootstrap,
)
from mtrl.evaluation.aggregates import Scores

# Golden values of rliable 1.2.0 (arch 7, numpy 2.2), computed once in an environment of its own with
# metrics.aggregate_*, metrics.probability_of_improvement and library.score_distributions on these scores.
# Its intervals come from library.get_interval_estimates and create_performance_profile after
# numpy.random.seed(0), with 50,000 resamples for X alone and 20,000 for the rest.
X = np.array(
    [
        [0.579, 0.394, 0.363, 0.923],
        [0.597, 0.463, 0.588, -0.186],
        [0.353, 0.137, 0.736, 0.482],
        [0.887, 0.714, 0.233, 0.649],
        [0.387, 0.557, 0.661, 0.393],
    ]
)

Y = np.array(
    [
        [0.579, 0.559, 0.491, 0.078],
        [0.361, 0.282, 0.233, 1.2],
        [0.52, -0.153, 0.133, 0.771],
        [0.212, 1.315, 0.035, 0.753],
        [0.506, 0.348, 0.364, 0.321],
        [0.721, 0.271, 0.519, 0.271],
        [1.046, 0.819, 0.59, 0.364],
    ]
)
THRESHOLDS = [0.0, 0.25, 0.5, 0.75, 1.0]

MONTE_CARLO = 0.012
"""Bound on the difference of two bootstrap quantiles, one of 20,000 and one of 50,000 or 20,000 resamples.

The standard error of a 2.5% quantile is sqrt(0.025 x 0.975 / B) / density; with B = 20,000 and a normal
density of standard deviation s it is 0.019 s. s is at most 0.09 here: five standard errors of the difference
of two such quantiles are 5 x sqrt(2) x 0.019 x 0.09 = 0.012.
"""


def test_points_equal_rliable() -> None:
    assert interquartile_mean(X) == pytest.approx(0.5088999999999999, abs=1e-9)
    assert optimality_gap(X) == pytest.approx(0.5045, abs=1e-9)
    assert mean_score(X) == pytest.approx(0.49550000000000005, abs=1e-9)
    assert probability_of_improvement(X, Y) == pytest.approx(0.5714285714285714, abs=1e-9)
    assert performance_profile(X, THRESHOLDS) == pytest.approx([0.95, 0.85, 0.5, 0.1, 0.0], abs=1e-9)


def test_intervals_equal_rliable_within_monte_carlo_error() -> None:
    generator = np.random.default_rng(0)
    middle = stratified_bootstrap(X, interquartile_mean, generator, resamples=20_000)
    assert (middle.low, middle.high) == pytest.approx((0.406, 0.6147), abs=MONTE_CARLO)
    gap = stratified_bootstrap(X, optimality_gap, generator, resamples=20_000)
    assert (gap.low, gap.high) == pytest.approx((0.3992, 0.61505), abs=MONTE_CARLO)
    chance = independent_bootstrap(X, Y, probability_of_improvement, generator, resamples=20_000)
    assert (chance.low, chance.high) == pytest.approx((0.4, 0.7393), abs=MONTE_CARLO)


def test_a_profile_band_equals_rliable() -> None:
    # the shares are multiples of 1/20, so that the quantiles of both samplings are the very same
    low, high = performance_profile_band(X, THRESHOLDS, np.random.default_rng(0), resamples=4_000)
    assert low == pytest.approx([0.85, 0.7, 0.3, 0.0, 0.0], abs=1e-9)
    assert high == pytest.approx([1.0, 1.0, 0.7, 0.25, 0.0], abs=1e-9)


def test_optimality_gap_by_hand() -> None:
    # what exceeds the target counts as the target: 1 - (0.5 + 1 + 0 + 1) / 4
    assert optimality_gap([[0.5, 1.7], [0.0, 1.0]]) == 0.375
    assert optimality_gap([[0.5, 1.7]], target=2.0) == pytest.approx(2.0 - 1.1)
    with pytest.raises(ConfigError, match="at least one"):
        optimality_gap([])


@given(st.integers(0, 2**32 - 1))
def test_a_profile_is_one_minus_the_distribution_function(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(6, 3))
    levels = np.linspace(-2, 2, 9)
    expected = 1.0 - stats.ecdf(scores.ravel()).cdf.evaluate(levels)
    assert performance_profile(scores, levels) == pytest.approx(expected, abs=1e-12)


def test_independent_bootstrap_is_a_function_of_the_seed_and_agrees_with_the_normal_interval() -> None:
    source = np.random.default_rng(7)
    first, second = source.normal(0.2, 1.0, (30, 3)), source.normal(0.0, 1.0, (40, 3))

    def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
        return mean_score(ours) - mean_score(theirs)

    found = independent_bootstrap(first, second, difference, np.random.default_rng(1), resamples=1500)
    assert found == independent_bootstrap(first, second, difference, np.random.default_rng(1), resamples=1500)
    spread = math.sqrt(first.var(axis=0).sum() / 30 + second.var(axis=0).sum() / 40) / 3
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.12)
    with pytest.raises(ConfigError, match="same tasks; got 3 and 2"):
        independent_bootstrap(first, second[:, :2], difference, source)
    with pytest.raises(OutOfRangeError, match="resamples=0"):
        independent_bootstrap(first, second, difference, source, resamples=0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_interquartile_mean_equals_trim_mean(scores: list[float]) -> None:
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-9, abs=1e-9)


def test_interquartile_mean_by_hand() -> None:
    # eight scores, two dropped at either end: (3 + 4 + 5 + 6) / 4
    assert interquartile_mean([[100, 3, 4, -7], [5, 6, 2, 50]]) == 4.5
    assert interquartile_mean([[1.0, 2.0, 9.0]]) == 4.0
    with pytest.raises(ConfigError, match="at least one"):
        interquartile_mean([])
    with pytest.raises(ConfigError, match="finite"):
        interquartile_mean([1.0, math.nan])


def test_probability_of_improvement_by_hand() -> None:
    # task 1: X {1, 3} against Y {2, 2}: half; task 2: a tie and a win of two pairs
    assert probability_of_improvement([[1, 5], [3, 6]], [[2, 5], [2, 5]]) == pytest.approx((0.5 + 0.75) / 2)


@given(st.integers(0, 2**32 - 1))
def test_probability_of_improvement_is_the_mann_whitney_statistic(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 5, (4, 3)), generator.integers(0, 5, (6, 3))
    expected = [stats.mannwhitneyu(first[:, k], second[:, k]).statistic / 24 for k in range(3)]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(expected))
    assert probability_of_improvement(second, first) == pytest.approx(1 - np.mean(expected))


def test_probability_of_improvement_needs_equal_tasks() -> None:
    with pytest.raises(ConfigError, match="same tasks; got 2 and 1"):
        probability_of_improvement([[1, 2]], [[1]])
    with pytest.raises(ConfigError, match="runs, tasks"):
        probability_of_improvement([1, 2], [1, 2])


def test_stratified_bootstrap_redraws_within_tasks_only() -> None:
    # every task is constant over runs: redrawing runs changes nothing, mixing tasks would
    table = np.tile([0.0, 10.0, 20.0, 30.0], (5, 1))
    found = stratified_bootstrap(table, interquartile_mean, np.random.default_rng(0), resamples=50)
    assert (found.value, found.low, found.high) == (15.0, 15.0, 15.0)


def test_stratified_bootstrap_is_a_function_of_the_seed_and_covers_the_estimate() -> None:
    table = np.random.default_rng(0).normal(size=(10, 4))

    def mean(scores: np.ndarray) -> float:
        return float(scores.mean())

    found = stratified_bootstrap(table, mean, np.random.default_rng(1), resamples=800)
    assert found == stratified_bootstrap(table, mean, np.random.default_rng(1), resamples=800)
    half = 1.959964 * math.sqrt(table.var(axis=0).sum() / 10) / 4
    assert (found.low, found.high) == pytest.approx(
        (table.mean() - half, table.mean() + half), abs=0.15 * half
    )


def test_whole_runs_keep_what_a_run_shares_between_its_tasks() -> None:
    """Scores that rise and fall together over the tasks say no more than one task does."""
    one = np.random.default_rng(5).random((6, 1))
    table, apart = np.repeat(one, 8, axis=1), np.random.default_rng(0)
    alone = stratified_bootstrap(one, mean_score, np.random.default_rng(0))
    whole = stratified_bootstrap(table, mean_score, np.random.default_rng(0), whole_runs=True)
    assert (whole.value, whole.low, whole.high) == pytest.approx((alone.value, alone.low, alone.high))
    narrow = stratified_bootstrap(table, mean_score, apart)
    # eight draws instead of one: narrower by the root of 8
    assert (whole.high - whole.low) / (narrow.high - narrow.low) == pytest.approx(8**0.5, rel=0.1)


def test_whole_runs_of_either_method_are_redrawn_by_themselves() -> None:
    def difference(first: Scores, second: Scores) -> float:
        assert all(len(set(row)) == 1 for row in (*first.tolist(), *second.tolist())), "a run was taken apart"
        return float(first.mean() - second.mean())

    first, second = (np.repeat(np.arange(float(runs))[:, None], 3, axis=1) for runs in (4, 2))
    found = independent_bootstrap(first, second, difference, np.random.default_rng(1), whole_runs=True)
    assert (found.value, found.low <= 0.0, found.high >= 2.0) == (1.0, True, True)
