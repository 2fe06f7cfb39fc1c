"""The scale of an axis, and numbers in words: short, in percent, with a true minus sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def short_number(value: float) -> str:
    """At most four significant digits: 0.0312, 12.5, 1,234, 56k, 7.8M, 1.2e-5."""
    magnitude = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if magnitude >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:,.4g}{unit}" if abs(scaled) < 1e4 else f"{value:.3g}"
    if magnitude >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}".replace("e-0", "e-")


def signed_number(value: float) -> str:
    """`short_number` with a true minus sign, which is as wide as a digit; exponents keep their hyphen."""
    number = short_number(value)
    return f"−{number[1:]}" if number.startswith("-") else number


def percent(share: float) -> str:
    """A share as percent: one digit, two below 1%, none for 0 and 1."""
    digits = 0 if share in (0.0, 1.0) else 2 if abs(share) < 0.01 else 1
    return f"{100 * share:,.{digits}f}%".replace("-", "−")


Ticks = tuple[tuple[float, str], ...]
"""Place from the left end, in percent, and number of every tick of a scale."""


@dataclass(frozen=True)
class Scale:
    """The range of an axis and its tick marks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @staticmethod
    def linear(low: float, high: float, count: int = 4, snap: bool = True) -> Scale:
        """low..high with at most about `count` ticks at 1, 2 or 5 times a power of ten.

        With `snap` the ends move outwards to ticks. A range that is empty, or too narrow for its values
        to hold different numbers, is widened around them.
        """
        from matplotlib.ticker import MaxNLocator

        if not high - low > 1e-9 * max(abs(low), abs(high)):
            margin = abs(low) * 0.1 or 1.0
            low, high = low - margin, high + margin
        found = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [float(f"{tick:.12g}") for tick in found]
        if snap:
            # ticks are rounded, and an end may lie beyond the last one by as much
            return Scale(min(low, *ticks), max(high, *ticks), tuple(ticks))
        return Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high))

    @staticmethod
    def logarithmic(low: float, high: float) -> Scale:
        """0 < low < high; ticks at powers of ten, or at 1, 2, 5 in a narrow range."""
        if not 0 < low < high:
            low, high = low * 0.9, low * 1.1
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        decades = np.array([10.0**exponent for exponent in exponents])
        coarse = decades[(decades >= low) & (decades <= high)]
        fine = np.outer(decades, (1.0, 2.0, 5.0)).ravel()
        ticks = coarse if len(coarse) > 3 else fine[(fine >= low) & (fine <= high)]
        return Scale(low, high, tuple(ticks[:: math.ceil(len(ticks) / 6)].tolist()), log=True)

    @staticmethod
    def of(values: Sequence[float]) -> Scale:
        """Logarithmic for positive values that span more than a factor of 30, otherwise linear."""
        low, high = min(values), max(values)
        return Scale.logarithmic(low, high) if low > 0 and high > 30 * low else Scale.linear(low, high)

    def placed(self, *, share: bool = False) -> Ticks:
        """The ticks of a linear scale; numbers in percent where its values are shares."""
        numbers = [signed_number(tick) for tick in self.ticks]
        if share:
            numbers = [f"{100 * tick:,.0f}".replace("-", "−") for tick in self.ticks]
            numbers[-1] += "%"
        span = self.high - self.low
        return tuple((100 * (t - self.low) / span, n) for t, n in zip(self.ticks, numbers, strict=True))


UNIT = Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
"""Shares from 0 to 100%."""
