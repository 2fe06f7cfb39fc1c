"""Exact tests on the starts that one policy alone solved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.evaluation import exact_mcnemar, sequential_test
from mtrl.evaluation.paired_tests import evidence

counts = st.integers(0, 40)


@given(counts, counts)
def test_mcnemar_is_the_exact_sign_test(gained: int, lost: int) -> None:
    expected = 1.0 if gained + lost == 0 else stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert exact_mcnemar(gained, lost) == pytest.approx(expected, abs=1e-12)
    assert exact_mcnemar(gained, lost) == exact_mcnemar(lost, gained)


def test_mcnemar_by_hand() -> None:
    # six coins, none on one side: 2 / 64
    assert exact_mcnemar(6, 0) == pytest.approx(2 / 64, abs=1e-15)
    with pytest.raises(OutOfRangeError, match="at least 0"):
        exact_mcnemar(-1, 2)


@given(st.integers(0, 15), st.integers(0, 15))
def test_evidence_is_the_integral_over_every_bias(gained: int, lost: int) -> None:
    integral, _ = integrate.quad(lambda p: (2 * p) ** gained * (2 * (1 - p)) ** lost, 0.0, 1.0)
    assert evidence(gained, lost) == pytest.approx(integral, rel=1e-9)


@given(counts, counts)
def test_evidence_neither_grows_nor_shrinks_on_average_without_a_difference(gained: int, lost: int) -> None:
    after = (evidence(gained + 1, lost) + evidence(gained, lost + 1)) / 2
    assert after == pytest.approx(evidence(gained, lost), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_looking_after_every_start_errs_at_most_as_often_as_promised(alpha: float) -> None:
    # exact: the probability over all sequences of 300 fair coins that the evidence ever reaches 1 / alpha
    alive, wrong = {0: 1.0}, 0.0
    for seen in range(1, 301):
        following: dict[int, float] = {}
        for gained, mass in alive.items():
            for more in (gained, gained + 1):
                if evidence(more, seen - more) >= 1 / alpha:
                    wrong += mass / 2
                else:
                    following[more] = following.get(more, 0.0) + mass / 2
        alive = following
    assert 0.2 * alpha < wrong <= alpha


def test_a_sequential_test_by_hand() -> None:
    # seven starts gained in a row: 2^7 / 8 = 16, eight: 2^8 / 9 = 28.4; a common success says nothing
    first = [True] * 10
    second = [True, *[False] * 8, True]
    found = sequential_test(first, second)
    assert found.decided_after == 9
    assert found.e_value == pytest.approx(2**8 / 9)
    assert found.p_value == pytest.approx(9 / 2**8)
    assert sequential_test(first[:8], second[:8]).decided_after is None
    assert sequential_test(second, first).e_value == found.e_value, "two-sided"
    assert sequential_test([], []).p_value == 1.0


def test_a_decision_stands_whatever_comes_later() -> None:
    first, second = [True] * 9 + [False] * 9, [False] * 9 + [True] * 9
    found = sequential_test(first, second)
    assert found.decided_after == 8
    assert found.e_value < 1.0 < 1.0 / found.p_value


def test_overwhelming_evidence_stays_finite() -> None:
    assert np.isfinite(evidence(5000, 0))


def test_sequences_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 and 2 outcomes"):
        sequential_test([True], [True, False])
    with pytest.raises(OutOfRangeError, match="alpha"):
        sequential_test([True], [True], alpha=0.0)
