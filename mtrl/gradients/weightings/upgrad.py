"""UPGrad: every gradient projected onto the cone in which no task gets worse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrl.errors import OutOfRangeError

from .base import GramianWeighting
from .solvers import shortest_above


@dataclass(frozen=True)
class UPGradConfig:
    """Settings of UPGrad."""

    regularisation: float = 1e-4
    """Added to the diagonal of the Gramian after division by its trace; above 0."""

    def __post_init__(self) -> None:
        if not self.regularisation > 0:
            raise OutOfRangeError("regularisation", self.regularisation, "a number above 0")


class UPGrad(GramianWeighting):
    """The aggregator UPGrad of "Jacobian Descent for Multi-Objective Optimization" (Quinton and Rey 2024,
    arXiv 2406.16232).

    The mean of the projections of all gradients onto the dual cone, so that to first order no loss
    increases. Each projection is argmin v^T G v over v >= e_i, as non-negative least squares on a factor of
    G, which ends on any Gramian, full rank or not.
    """

    def __init__(self, config: UPGradConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.config = config

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        root = conditioned_root(gramian, self.config.regularisation)
        conflicts = np.flatnonzero((gramian < 0).any(axis=1))
        # Whoever conflicts with nobody lies in the cone already.
        weights = np.zeros(count)
        for task in range(count):
            unit = np.zeros(count)
            unit[task] = 1.0 / count
            weights += shortest_above(root, unit) if task in conflicts else unit
        return weights


def conditioned_root(gramian: np.ndarray, regularisation: float) -> np.ndarray:
    """Upper triangular R [K, K] with R^T R = G / trace(G) + regularisation I."""
    normal = gramian / np.trace(gramian) + regularisation * np.eye(len(gramian))
    root: np.ndarray = np.linalg.cholesky(normal).T
    return root
