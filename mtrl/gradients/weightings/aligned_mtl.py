"""Aligned-MTL: gradients made orthogonal and equally long before they are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrl.errors import UnknownNameError

from .base import GramianWeighting
from .solvers import independent_parts

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

    Directions without an eigenvalue of the cosines are dropped and `deficient` is set.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        # singular values sqrt(lambda), falling, and eigenvectors V of the Gramian G, the paper's G^T G
        singular, vectors, self.deficient = independent_parts(gramian)
        # sigma, the common singular value: of an even count the lower of the two middle ones
        middle, mean = singular[len(singular) // 2], np.sqrt(np.mean(singular**2))
        scale = {"min": singular[-1], "median": middle, "rmse": mean}[self.config.scale]
        # alpha = B w with B = sigma V diag(lambda)^(-1/2) V^T and the preference w = 1 / K
        weights: np.ndarray = scale * (vectors @ (vectors.mean(axis=0) / singular))
        return weights
