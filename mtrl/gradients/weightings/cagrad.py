"""CAGrad: the average gradient, moved within a ball so that the worst task improves most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from mtrl.errors import OutOfRangeError

from .base import GramianWeighting
from .solvers import factor, shortest_in_hull


@dataclass(frozen=True)
class CAGradConfig:
    """Settings of CAGrad."""

    radius: float = 0.5
    """c of the paper: the ball's radius as a share of the average gradient's norm, at least 0. In multi-task
    reinforcement learning 0.9 was used for 10 tasks and 0.5 for 50."""
    rescale: bool = False
    """Whether the result is divided by 1 + radius^2, as the authors' code does."""

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise OutOfRangeError("radius", self.radius, "a number of at least 0")


class CAGrad(GramianWeighting):
    """Algorithm 1 of "Conflict-Averse Gradient Descent" (Liu et al. 2021, arXiv 2110.14048).

    min over the simplex of g_w . g_0 + c |g_0| |g_w|, then d = g_0 + c |g_0| g_w / |g_w|. For a given length
    t of g_w the second term is c |g_0| (|g_w|^2 / t + t) / 2, and the minimum the point of a shifted hull
    nearest to 0, which is exact; t is where that point's length agrees.
    """

    def __init__(self, config: CAGradConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.config = config

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        columns = factor(gramian)
        average = columns.mean(axis=1)
        reach = self.config.radius * float(np.linalg.norm(average))
        weights = np.full(count, 1.0 / count)
        scale = float(np.sqrt(np.diag(gramian).max()))
        if reach > 1e-12 * scale:

            def nearest(length: float) -> np.ndarray:
                return shortest_in_hull(columns + (length / reach) * average[:, None])

            def excess(length: float) -> float:
                return float(np.linalg.norm(columns @ nearest(length))) - length

            # A length of 0 belongs to a hull that holds 0: the direction is then that of no descent.
            low, high = 1e-9 * scale, scale
            if excess(low) > 0:
                length = brentq(excess, low, high * (1 + 1e-9), xtol=1e-10 * scale)
                found = nearest(length)
                norm = float(np.linalg.norm(columns @ found))
                weights = weights + reach / norm * found
        return weights / (1 + self.config.radius**2) if self.config.rescale else weights
