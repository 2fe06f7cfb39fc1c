"""CAGrad: the average gradient, moved within a ball so that the worst task improves most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.optimize import brentq

from mtrl.structured import Checked, at_least

from .base import GramianWeighting
from .solvers import factor, shortest_in_hull

_SHORTEST = 1e-4
"""Least length of g_w as a share of the longest gradient's, below which its direction is float32's rounding;
also the cut of TorchJD."""


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

    The hull lies 1e-4 of the longest gradient away from 0, in a direction of its own: a t is always found,
    the update never leaves the ball, and near Pareto stationarity it depends smoothly on the gradients.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        columns = factor(gramian)
        longest = float(np.sqrt(np.max(np.sum(columns**2, axis=0))))
        # g_0 = 1/K sum_k g_k, and sqrt(phi) = c |g_0|
        average = np.append(columns.mean(axis=1), 0.0)
        reach = self.config.radius * float(np.linalg.norm(average))
        weights = np.full(len(gramian), 1.0 / len(gramian))
        columns = np.vstack([columns, np.full(len(gramian), _SHORTEST * longest)])
        if reach > 1e-12 * longest:
            # the dual: min over the simplex of F(w) = g_w . g_0 + sqrt(phi) |g_w|
            def nearest(length: float) -> np.ndarray:
                return shortest_in_hull(columns + (length / reach) * average[:, None])

            def excess(length: float) -> float:
                return float(np.linalg.norm(columns @ nearest(length))) - length

            length = brentq(excess, 0.5 * _SHORTEST * longest, 2 * longest, xtol=1e-10 * longest)
            convex = nearest(length)
            # d = g_0 + sqrt(phi) / |g_w| g_w
            weights = weights + reach / float(np.linalg.norm(columns @ convex)) * convex
        return weights / (1 + self.config.radius**2) if self.config.rescale else weights
