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
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval; its ends belong to it."""
        return not self.low <= value <= self.high


def percentile_estimate(value: float, draws: Array, confidence: float) -> Estimate:
    """The percentile interval of resampled statistics `draws` [B] around the point estimate `value`."""
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
