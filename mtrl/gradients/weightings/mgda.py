"""MGDA: the shortest combination of the gradients."""

from __future__ import annotations

import numpy as np

from .base import GramianWeighting, NoSettings
from .solvers import factor, shortest_in_hull


class MGDA(GramianWeighting[NoSettings]):
    """Section 3 of "Multi-Task Learning as Multi-Objective Optimization" (Sener and Koltun 2018, arXiv
    1810.04650), solved exactly. Steps shrink as tasks conflict and vanish where they are Pareto stationary.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        # equation 3 of Sener and Koltun: min |sum_k w_k g_k|^2 over w >= 0 with sum_k w_k = 1 (Desideri 2012)
        return shortest_in_hull(factor(gramian))
