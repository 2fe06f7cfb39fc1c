"""IMTL-G: an update with the same projection onto every gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import GramianWeighting
from .solvers import RANK_TOLERANCE


@dataclass(frozen=True)
class IMTLGConfig:
    """IMTL-G has no settings."""


class IMTLG(GramianWeighting):
    """The closed form of IMTL-G in "Towards Impartial Multi-task Learning" (Liu et al. 2021), in the form G w
    ~ (|g_1| .. |g_K|).

    Weights sum to 1 and may be negative. Where G lacks full rank the solution of least norm is taken and
    `deficient` says so; where the weights cannot be scaled to sum 1 the average stands in for them.
    """

    def __init__(self, config: IMTLGConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        lengths = np.sqrt(np.diag(gramian))
        cosine = gramian / np.outer(lengths, lengths)
        values, vectors = np.linalg.eigh(cosine)
        kept = values > RANK_TOLERANCE * values[-1]
        self.deficient = not bool(kept.all())
        basis = vectors[:, kept]
        weights = basis @ ((basis.T @ np.ones(len(cosine))) / values[kept]) / lengths
        total = weights.sum()
        if abs(total) < 1e-12 * np.abs(weights).sum() or total == 0:
            self.deficient = True
            return np.full(len(gramian), 1.0 / len(gramian))
        return weights / total
