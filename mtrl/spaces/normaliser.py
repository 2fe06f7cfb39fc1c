"""Per-task running mean and variance of padded vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError


@dataclass(frozen=True)
class Moments:
    """Frozen standardisation statistics, one row per task."""

    mean: npt.NDArray[np.float32]
    """Shape [K, D]."""
    scale: npt.NDArray[np.float32]
    """Standard deviation floored at `minimum_scale`, shape [K, D]; 1 in padded dimensions."""


class RunningMoments:
    """Streaming mean and variance per task, merged exactly (Chan, Golub and LeVeque 1979, equation 2.1).

    Adding the moments of two halves of the data gives those of the whole, in any order.
    """

    def __init__(self, task_count: int, size: int, minimum_scale: float = 1e-2) -> None:
        """`size` is the padded vector length D; scales below `minimum_scale` are floored to it."""
        self.count = np.zeros(task_count, dtype=np.float64)
        self.mean = np.zeros((task_count, size), dtype=np.float64)
        self.squares = np.zeros((task_count, size), dtype=np.float64)
        self.minimum_scale = minimum_scale

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

    def add(
        self, k: int, count: float, mean: npt.NDArray[np.float64], squares: npt.NDArray[np.float64]
    ) -> None:
        """Adds `count` > 0 observations of task k by their mean [D] and summed squared deviations [D]."""
        total = self.count[k] + count
        delta = mean - self.mean[k]
        self.mean[k] += delta * (count / total)
        self.squares[k] += squares + delta**2 * (self.count[k] * count / total)
        self.count[k] = total

    def freeze(self, mask: npt.NDArray[np.bool_]) -> Moments:
        """Statistics for use; dimensions where `mask` [K, D] is False get mean 0 and scale 1."""
        variance = self.squares / np.maximum(self.count, 1.0)[:, None]
        scale = np.maximum(np.sqrt(variance), self.minimum_scale)
        seen = mask & (self.count > 0)[:, None]
        return Moments(
            mean=np.where(seen, self.mean, 0.0).astype(np.float32),
            scale=np.where(seen, scale, 1.0).astype(np.float32),
        )

    def state_dict(self) -> dict[str, npt.NDArray[np.float64]]:
        """Copies of count [K], mean [K, D] and summed squared deviations [K, D]."""
        return {"count": self.count.copy(), "mean": self.mean.copy(), "squares": self.squares.copy()}

    def load_state_dict(self, state: dict[str, npt.NDArray[np.float64]]) -> None:
        """Restores what `state_dict` returned."""
        self.count[:], self.mean[:], self.squares[:] = state["count"], state["mean"], state["squares"]
