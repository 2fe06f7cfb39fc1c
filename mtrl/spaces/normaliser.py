"""Per-task running mean and variance of padded vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.errors import MtrlWarning, SpaceError

Statistics = npt.NDArray[np.float64]

FLOAT32_ROUNDING = 2.0**-20
"""Deviation relative to the mean up to which a float32 value is constant: eight roundings of a float32."""
FLOAT64_ROUNDING = 2.0**-40
"""Deviation relative to the median entry of the task's vector up to which a value is constant: simulators
compute in float64, and what should be 0 in them is some rounding of the other entries."""


@dataclass(frozen=True)
class Moments:
    """Frozen standardisation statistics, one row per task."""

    mean: npt.NDArray[np.float32]
    """Shape [K, D]."""
    scale: npt.NDArray[np.float32]
    """What values minus `mean` are divided by, shape [K, D]: the standard deviation; for a dimension that is
    constant up to rounding its own size or that of the median entry, if larger; 1 in padded dimensions."""


class RunningMoments:
    """Streaming mean and variance per task, merged exactly (Chan, Golub and LeVeque 1979, equation 2.1).

    Adding the moments of two halves of the data gives those of the whole, in any order. Nothing is measured
    in absolute units: values multiplied by a power of two have the same moments, multiplied, bit for bit.
    """

    def __init__(self, task_count: int, size: int) -> None:
        """`size` is the padded vector length D."""
        self.count = np.zeros(task_count, dtype=np.float64)
        self.mean = np.zeros((task_count, size), dtype=np.float64)
        self.squares = np.zeros((task_count, size), dtype=np.float64)

    def update(self, task_index: int, values: npt.NDArray[np.floating]) -> None:
        """Adds rows `values` [..., D] of one task; raises SpaceError for another length than D."""
        values = np.asarray(values, dtype=np.float64)
        size = self.mean.shape[1]
        if values.ndim == 0 or values.shape[-1] != size:
            raise SpaceError(f"moments are kept over padded vectors of length {size}; got {values.shape}")
        values = values.reshape(math.prod(values.shape[:-1]), size)
        if len(values) == 0:
            return
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        self.add(task_index, float(len(values)), mean, squares)

    def add(self, k: int, count: float, mean: Statistics, squares: Statistics) -> None:
        """Adds `count` > 0 observations of task k by their mean [D] and summed squared deviations [D]."""
        total = self.count[k] + count
        delta = mean - self.mean[k]
        self.mean[k] += delta * (count / total)
        self.squares[k] += squares + delta**2 * (self.count[k] * count / total)
        self.count[k] = total

    def deviation(self, tasks: slice = slice(None)) -> Statistics:
        """Standard deviations [K, D] of these tasks; 0 for what is constant up to rounding."""
        deviation, size = self._sizes(tasks)
        rounding = np.maximum(FLOAT32_ROUNDING * np.abs(self.mean[tasks]), FLOAT64_ROUNDING * _median(size))
        return np.where(deviation > rounding, deviation, 0.0)

    def freeze(self, mask: npt.NDArray[np.bool_]) -> Moments:
        """Statistics for use; dimensions where `mask` [K, D] is False get mean 0 and scale 1."""
        deviation = self.deviation()
        # of a constant, later values are seen in units of the vector, and its rounding is next to nothing
        size = np.maximum(np.abs(self.mean), _median(self._sizes(slice(None))[1]))
        scale = np.where(deviation > 0, deviation, np.where(size > 0, size, 1.0))
        seen = mask & (self.count > 0)[:, None]
        smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
        return Moments(
            mean=np.where(seen, self.mean, 0.0).astype(np.float32),
            scale=np.where(seen, np.clip(scale, smallest, largest), 1.0).astype(np.float32),
        )

    def constants(self, mask: npt.NDArray[np.bool_]) -> dict[int, list[int]]:
        """Task with observations -> the dimensions of `mask` [K, D] that were constant up to rounding."""
        constant = mask & (self.deviation() == 0)
        return {k: np.flatnonzero(constant[k]).tolist() for k in np.flatnonzero(self.count > 0).tolist()}

    def _sizes(self, tasks: slice) -> tuple[Statistics, Statistics]:
        """Deviations and sizes [K, D]; the size of an entry is its mean or its deviation, if larger."""
        deviation = np.sqrt(self.squares[tasks] / np.maximum(self.count[tasks], 1.0)[:, None])
        return deviation, np.maximum(np.abs(self.mean[tasks]), deviation)

    def state_dict(self) -> dict[str, Statistics]:
        """Copies of count [K], mean [K, D] and summed squared deviations [K, D]."""
        return {"count": self.count.copy(), "mean": self.mean.copy(), "squares": self.squares.copy()}

    def load_state_dict(self, state: Mapping[str, Statistics]) -> None:
        """Restores what `state_dict` returned."""
        self.count[:], self.mean[:], self.squares[:] = state["count"], state["mean"], state["squares"]


def _median(size: Statistics) -> Statistics:
    """[K, D] -> [K, 1], the (lower) median of the entries that are not 0; 0 without any."""
    others = np.count_nonzero(size, axis=1, keepdims=True)
    if not others.any():
        return np.zeros(others.shape)
    ascending = np.sort(np.where(size > 0, size, np.inf), axis=1)
    median = np.take_along_axis(ascending, np.maximum(others - 1, 0) // 2, axis=1)
    return np.where(others > 0, median, 0.0)


def warn_of_constants(constants: Mapping[str, Sequence[int]]) -> None:
    """One warning of the state dimensions of tasks that were constant; none where there are none."""
    named = [f"{name} [{_ranges(which)}]" for name, which in constants.items() if which]
    if named:
        warnings.warn(
            "state dimensions that did not vary so far, up to rounding, say nothing to the policy; they are "
            f"centred and not scaled by their deviation: {', '.join(named)}",
            MtrlWarning,
            stacklevel=3,
        )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as "0, 3-5"."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
