"""DualProj: the average gradient projected onto the cone in which no task gets worse."""

from __future__ import annotations

import numpy as np

from .base import GramianWeighting
from .solvers import conditioned_root, shortest_above
from .upgrad import ConeConfig


class DualProj(GramianWeighting[ConeConfig]):
    """The projection of equation 11 of "Gradient Episodic Memory" (Lopez-Paz and Ranzato 2017, arXiv
    1706.08840), of the average: one problem where UPGrad solves K.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        root = conditioned_root(gramian, self.config.regularisation)
        # min |g - d|^2 subject to g_i . d >= 0 has d = sum_k v_k g_k: argmin v^T G v over v >= 1/K
        return shortest_above(root, np.full(len(gramian), 1.0 / len(gramian)))
