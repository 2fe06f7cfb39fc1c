"""Numbers with their intervals as text: "45.1 [40, 50]", and "45.1 [-]" where no interval can be had.

An interval has fewer digits than its value, as long as it still holds the value as printed.
"""

from __future__ import annotations

from .results import Rate
from .statistics import Estimate

NO_INTERVAL = "[-]"
"""What stands for the interval of a single outcome."""


def format_rate(rate: Rate) -> str:
    """Percent with the interval in whole percent, "94.0 [84, 98]"."""
    return format_percent(rate.estimate)


def format_percent(estimate: Estimate) -> str:
    """Percent with the interval in whole percent, "45.1 [40, 50]"."""
    return _with_interval(estimate, 100.0, 1, 0)


def format_points(estimate: Estimate) -> str:
    """A difference in percentage points with its sign and the interval in whole points, "+4.2 [-1, +9]"."""
    return _with_interval(estimate, 100.0, 1, 0, "+")


def format_signed(estimate: Estimate, factor: float, digits: int) -> str:
    """`factor` times a difference, signed, with the interval in equally many digits: "+4.2 [-1.1, +9.0]"."""
    return _with_interval(estimate, factor, digits, digits, "+")


def format_plain(estimate: Estimate) -> str:
    """A number of any size with its interval, three digits where it is small: "0.512 [0.4, 0.61]"."""
    if max(abs(estimate.value), abs(estimate.low), abs(estimate.high)) >= 100:
        return _with_interval(estimate, 1.0, 1, 0)
    if not estimate.has_interval:
        return f"{estimate.value:.3g} {NO_INTERVAL}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _with_interval(estimate: Estimate, factor: float, digits: int, coarse: int, sign: str = "") -> str:
    value, low, high = (factor * x for x in (estimate.value, estimate.low, estimate.high))
    shown = _rounded(value, digits)
    text = f"{shown:{sign}.{digits}f}"
    if not estimate.has_interval:
        return f"{text} {NO_INTERVAL}"
    if not _rounded(low, coarse) <= shown <= _rounded(high, coarse):
        coarse = digits
    low, high = _rounded(low, coarse), _rounded(high, coarse)
    return f"{text} [{low:{sign}.{coarse}f}, {high:{sign}.{coarse}f}]"


def _rounded(value: float, digits: int) -> float:
    # + 0.0: minus zero is no number that a table should show
    return round(value, digits) + 0.0
