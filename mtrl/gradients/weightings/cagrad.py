"""CAGrad: the average gradient, moved within a ball so that the worst task improves most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.optimize import brentq

from mtrl.structured import Checked, at_least

from .base import GramianWeighting
from .solvers import factor, shortest_in_hull


@dataclass(frozen=True)
class CAGradConfig(Checked):
    radius: Annotated[float, at_least(0)] = 0.5
    """c of the paper: the ball's radius as a share of the average gradient's norm, at least 0. In multi-task
    reinforcement learning 0.9 was used for 10 tasks and 0.5 for 50."""
    rescale: bool = False
    """Whether the result is divided by 1 + radius^2, as the authors' code does."""


class CAGrad(GramianWeighting[CAGradConfig]):
    """Algorithm 1 of "Conflict-Averse Gradient Descent" (Liu et al. 2021, arXiv 2110.14048).

    For a given length t of g_w the second term of its dual, c |g_0| |g_w|, is c |g_0| (|g_w|^2 / t + t) / 2,
    and the minimum the point nearest to 0 of the hull shifted by t g_0 / (c |g_0|), which is exact. t solves
    |g_w| = t for the weights w of that point, g_w taken in the hull that is not shifted (own derivation).
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        columns = factor(gramian)
        # g_0 = 1/K sum_k g_k, and sqrt(phi) = c |g_0|
        average = columns.mean(axis=1)
        reach = self.config.radius * float(np.linalg.norm(average))
        weights = np.full(len(gramian), 1.0 / len(gramian))
        scale = float(np.sqrt(np.diag(gramian).max()))
        if reach > 1e-12 * scale:
            # the dual: min over the simplex of F(w) = g_w . g_0 + sqrt(phi) |g_w|
            def nearest(length: float) -> np.ndarray:
                return shortest_in_hull(columns + (length / reach) * average[:, None])

            def excess(length: float) -> float:
                return float(np.linalg.norm(columns @ nearest(length))) - length

            # A length of 0 belongs to a hull that holds 0: the direction is then that of no descent.
            low, high = 1e-9 * scale, scale
            if excess(low) > 0:
                length = brentq(excess, low, high * (1 + 1e-9), xtol=1e-10 * scale)
                convex = nearest(length)
                norm = float(np.linalg.norm(columns @ convex))
                # d = g_0 + sqrt(phi) / |g_w| g_w
                weights = weights + reach / norm * convex
        return weights / (1 + self.config.radius**2) if self.config.rescale else weights
