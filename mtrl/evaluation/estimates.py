"""What every resampling shares: an estimate with its interval, and checks of what is resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
