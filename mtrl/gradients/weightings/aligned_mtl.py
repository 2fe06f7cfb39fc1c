"""Aligned-MTL: gradients made orthogonal and equally long before they are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrl.errors import UnknownNameError

from .base import GramianWeighting
from .solvers import RANK_TOLERANCE

_SCALES = ("min", "median", "rmse")


@dataclass(frozen=True)
class AlignedMTLConfig:
    """Settings of Aligned-MTL."""

    scale: str = "min"
    """Common singular value of the aligned gradients: "min" (the paper's), "median" or "rmse" of their
    own."""

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise UnknownNameError("scale of aligned_mtl", self.scale, _SCALES)


class AlignedMTL(GramianWeighting):
    """Algorithm 1 of "Independent Component Alignment for Multi-Task Learning" (Senushkin et al. 2023,
    arXiv 2305.19000): w = sqrt(scale) V diag(eigenvalues)^(-1/2) V^T 1/K over the eigenvectors V of G.

    Directions without an eigenvalue are dropped and `deficient` says so.
    """

    def __init__(self, config: AlignedMTLConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.config = config

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        values, vectors = np.linalg.eigh(gramian)
        kept = values > RANK_TOLERANCE * values[-1]
        self.deficient = not bool(kept.all())
        values, vectors = values[kept], vectors[:, kept]
        # Of an even count the lower of the two middle values.
        median = values[(len(values) - 1) // 2]
        scale = {"min": values[0], "median": median, "rmse": values.mean()}[self.config.scale]
        weights: np.ndarray = np.sqrt(scale) * (
            vectors @ ((vectors.T @ np.full(count, 1.0 / count)) / np.sqrt(values))
        )
        return weights
