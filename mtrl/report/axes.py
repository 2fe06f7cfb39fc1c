"""Scales, round tick marks, and numbers in words for the report's figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A range mapped to 0..1, linearly or by its logarithm, with tick marks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where `value` lies: 0 at `low`, 1 at `high`; clipped to that range."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


def linear_axis(low: float, high: float, wanted: int = 4, snap: bool = True) -> Axis:
    """An axis over low..high with about `wanted` ticks at 1, 2 or 5 times a power of ten.

    With `snap` the ends move outwards to ticks. A range that is empty, or too narrow beside its values to
    hold different numbers, is widened around them.
    """
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next((factor for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10)
    if snap:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    # rounding takes away the 0.30000000000000004 of repeated addition
    ticks = tuple(round((first + index) * step, 12 - math.floor(math.log10(step))) for index in range(count))
    return Axis(low, high, ticks)


def log_axis(low: float, high: float) -> Axis:
    """A logarithmic axis over 0 < low < high; ticks at powers of ten, or at 1, 2, 5 in a narrow range."""
    if not 0 < low < high:
        low, high = low * 0.9, low * 1.1
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**exponent for exponent in exponents]
    fine = [factor * decade for decade in decades for factor in (1, 2, 5)]
    coarse = [decade for decade in decades if low <= decade <= high]
    ticks = coarse if len(coarse) > 3 else [tick for tick in fine if low <= tick <= high]
    while len(ticks) > 6:
        ticks = ticks[::2]
    return Axis(low, high, tuple(ticks), log=True)


def value_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis for positive values that span more than a factor of 30, otherwise a linear one."""
    low, high = min(values), max(values)
    if low > 0 and high > 30 * low:
        return log_axis(low, high)
    return linear_axis(low, high)


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


def percent(share: float) -> str:
    """A share as percent: one digit, two below 1%, none for 0 and 1."""
    digits = 0 if share in (0.0, 1.0) else 2 if abs(share) < 0.01 else 1
    return f"{100 * share:,.{digits}f}%".replace("-", "−")
