"""Sweeps over many cases: the default run takes a sample, another one each day; `-m slow` takes the rest.

The header of a run names its day; `MTRL_TEST_DAY=N` repeats the samples of day N.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import pytest

Case = TypeVar("Case")

DAY = int(os.environ["MTRL_TEST_DAY"])
"""Set by tests/conftest.py before test processes start, so that all of them agree."""


def sample(cases: Sequence[Case], share: int) -> Sequence[Case]:
    """Every `share`-th case, beginning at another one each day."""
    return cases[DAY % share :: share]


def sampled(cases: Iterable[Any], share: int) -> list[Any]:
    """The cases as parameters of a test; those that are not in today's `sample` are slow."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
        for place, case in enumerate(cases)
        for marks in [() if place % share == DAY % share else pytest.mark.slow]
    ]
