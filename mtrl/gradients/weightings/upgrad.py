"""UPGrad: every gradient projected onto the cone in which no task gets worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked

from .base import GramianWeighting
from .solvers import conditioned_root, shortest_above


@dataclass(frozen=True)
class ConeConfig(Checked):
    regularisation: Annotated[float, POSITIVE] = 1e-4
    """Added to the diagonal of the Gramian after division by its trace; above 0."""


class UPGrad(GramianWeighting[ConeConfig]):
    """The aggregator UPGrad of "Jacobian Descent for Multi-Objective Optimization" (Quinton and Rey 2024,
    arXiv 2406.16232): the mean of all gradients' projections onto the dual cone, so that to first order no
    loss increases.

    Non-negative least squares on a factor of G, which ends on any Gramian, full rank or not.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        root = conditioned_root(gramian, self.config.regularisation)
        conflicts = np.flatnonzero((gramian < 0).any(axis=1))
        weights = np.zeros(count)
        for task in range(count):
            unit = np.zeros(count)
            unit[task] = 1.0 / count
            # Proposition 1: pi(g_i) = J^T v with v = argmin v^T G v over v >= e_i, G = J J^T; a gradient
            # without conflict lies in the cone already
            weights += shortest_above(root, unit) if task in conflicts else unit
        return weights
