"""Numbers with their intervals: what a reader of a table may conclude from the digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrl.evaluation.formats import (
    format_percent,
    format_plain,
    format_points,
    format_rate,
    format_signed,
)
from mtrl.evaluation.results import Rate
from mtrl.evaluation.statistics import Estimate

FORMATS = {
    "rate": lambda e: format_rate(Rate(e.value, e.low, e.high)),
    "percent": format_percent,
    "points": format_points,
    "signed": lambda e: format_signed(e, 100, 1),
    "plain": format_plain,
}
NUMBERS = st.floats(-1e5, 1e5)


@pytest.mark.parametrize(
    ("kind", "numbers", "text"),
    [
        ("percent", (0.451, 0.40, 0.503), "45.1 [40, 50]"),
        ("percent", (0.014, 0.0139, 0.0142), "1.4 [1.4, 1.4]"),
        ("percent", (0.0, -0.001, 0.0), "0.0 [0, 0]"),
        ("rate", (0.94, 0.84, 0.98), "94.0 [84, 98]"),
        ("rate", (0.004, 0.0031, 0.0049), "0.4 [0.3, 0.5]"),
        ("points", (0.042, -0.011, 0.09), "+4.2 [-1, +9]"),
        ("points", (-0.014, -0.014, -0.014), "-1.4 [-1.4, -1.4]"),
        ("signed", (0.042, -0.011, 0.09), "+4.2 [-1.1, +9.0]"),
        ("plain", (0.512, 0.4, 0.61), "0.512 [0.4, 0.61]"),
        ("plain", (-350.44, -350.44, -350.44), "-350.4 [-350.4, -350.4]"),
        ("plain", (450.0, 400.2, 500.0), "450.0 [400, 500]"),
    ],
)
def test_an_interval_has_fewer_digits_unless_it_would_exclude_its_value(
    kind: str, numbers: tuple[float, float, float], text: str
) -> None:
    assert FORMATS[kind](Estimate(*numbers)) == text


@given(st.lists(NUMBERS, min_size=3, max_size=3), st.sampled_from(sorted(FORMATS)))
def test_a_printed_interval_holds_its_printed_value(numbers: list[float], kind: str) -> None:
    low, value, high = sorted(numbers)
    text = FORMATS[kind](Estimate(value, low, high))
    shown, _, interval = text.partition(" ")
    first, last = (float(end) for end in interval.strip("[]").split(", "))
    assert first <= float(shown) <= last


@pytest.mark.parametrize("kind", ["percent", "points", "signed", "plain"])
@pytest.mark.parametrize("value", [2.1, 210.0])
def test_one_outcome_has_no_interval(kind: str, value: float) -> None:
    text = FORMATS[kind](Estimate(value, value, value, has_interval=False))
    assert text.endswith(" [-]") and "[" not in text[:-3]
    assert np.isclose(float(text.split()[0]) / value, 1.0 if kind == "plain" else 100.0)
