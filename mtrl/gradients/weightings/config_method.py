"""ConFIG: an update at the same angle to every gradient."""

from __future__ import annotations

import numpy as np

from .base import GramianWeighting, NoSettings
from .solvers import cosine_matrix, least_norm_solution


class ConFIG(GramianWeighting[NoSettings]):
    """The operator of equation 2 of "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks" (Liu et al. 2024, arXiv 2408.11104), in terms of the cosines C.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        lengths, cosine = cosine_matrix(gramian)
        # g_v = sum_i v_i g_i / |g_i| with C v = 1: the same inner product with every unit gradient
        direction, self.deficient = least_norm_solution(cosine)
        square = float(direction @ cosine @ direction)
        if square == 0.0:
            return np.zeros(len(gramian))
        # g = (sum_i g_i . u) u with u = g_v / |g_v|: as long as the sum of all projections onto it
        projections = float(lengths @ (cosine @ direction))
        weights: np.ndarray = projections / square * direction / lengths
        return weights
