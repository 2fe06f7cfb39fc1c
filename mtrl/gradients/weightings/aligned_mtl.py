"""Aligned-MTL: gradients made orthogonal and equally long before they are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrl.errors import UnknownNameError

from .base import GramianWeighting
from .solvers import positive_spectrum

_SCALES = ("min", "median", "rmse")


@dataclass(frozen=True)
class AlignedMTLConfig:
    scale: str = "min"
    """Common singular value of the aligned gradients: "min" (the paper's), "median" or "rmse" of their
    own."""

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise UnknownNameError("scale of aligned_mtl", self.scale, _SCALES)


class AlignedMTL(GramianWeighting[AlignedMTLConfig]):
    """Algorithm 1 of "Independent Component Alignment for Multi-Task Learning" (Senushkin et al. 2023,
    arXiv 2305.19000).

    Directions without an eigenvalue are dropped and `deficient` is set.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        # eigenvalues lambda and eigenvectors V of the Gramian G, the paper's G^T G
        values, vectors, self.deficient = positive_spectrum(gramian)
        # sigma^2, the square of the common singular value: of an even count the lower of the two middle ones
        median = values[(len(values) - 1) // 2]
        scale = {"min": values[0], "median": median, "rmse": values.mean()}[self.config.scale]
        # alpha = B w with B = sigma V diag(lambda)^(-1/2) V^T and the preference w = 1 / K
        preference = np.full(len(gramian), 1.0 / len(gramian))
        weights: np.ndarray = np.sqrt(scale) * (vectors @ ((vectors.T @ preference) / np.sqrt(values)))
        return weights
