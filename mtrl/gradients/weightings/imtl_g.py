"""IMTL-G: an update with the same projection onto every gradient."""

from __future__ import annotations

import numpy as np

from .base import GramianWeighting, NoSettings
from .solvers import cosine_matrix, least_norm_solution


class IMTLG(GramianWeighting[NoSettings]):
    """The closed form of IMTL-G in "Towards Impartial Multi-task Learning" (Liu et al., ICLR 2021), in terms
    of cosines (own derivation).

    Weights may be negative. Where the Gramian lacks full rank the solution of least norm is taken and
    `deficient` is set; where the weights cannot be scaled to sum 1 the average replaces them.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        lengths, cosine = cosine_matrix(gramian)
        # g . u_i alike for all unit gradients u_i: with C the cosines, C (|g_1| w_1 .. |g_K| w_K) ~ 1
        scaled, self.deficient = least_norm_solution(cosine)
        weights = scaled / lengths
        # sum_i w_i = 1
        total = weights.sum()
        if abs(total) <= 1e-6 * np.abs(weights).sum():
            self.deficient = True
            return np.full(len(gramian), 1.0 / len(gramian))
        return weights / total
