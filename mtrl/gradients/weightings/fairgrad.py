"""FairGrad: alpha-fair weights, which limit how much less a task improves than others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked

from .base import GramianWeighting
from .solvers import cosine_matrix, regularised


@dataclass(frozen=True)
class FairGradConfig(Checked):
    alpha: Annotated[float, POSITIVE] = 1.0
    """Fairness: 1 is proportional (the direction of Nash-MTL), larger favours the worst task; above 0."""
    regularisation: Annotated[float, POSITIVE] = 1e-4
    """Share by which the diagonal is raised where the Gramian lacks full rank; above 0."""


class FairGrad(GramianWeighting[FairGradConfig]):
    """The alpha-fair weights of "Fair Resource Allocation in Multi-Task Learning" (Ban and Ji 2024, arXiv
    2402.15638). Where the Gramian G lacks full rank no solution need exist: G is regularised and `deficient`
    is set.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        sound, self.deficient = regularised(gramian, self.config.regularisation)
        # G w = w^(-1/alpha), the paper's G^T G w with its G the gradients
        return fair_weights(sound, self.config.alpha)


def fair_weights(gramian: np.ndarray, alpha: float) -> np.ndarray:
    """w > 0 with G w = w^(-1/alpha), for a positive definite G.

    The stationary point of the convex w^T G w / 2 - sum_i phi(w_i), phi' = w^(-1/alpha), by Newton steps that
    stay positive and go down (own derivation). Ends where (G w) w^(1/alpha) - 1 is rounding.
    """
    power = 1.0 / alpha
    # In units of each gradient's own length the problem is as well conditioned as its cosines allow: with
    # p = 1 / alpha, w = v unit and this unit, G w = w^-p is (unit_i^p |g_i| cos_ij |g_j| unit_j) v = v^-p
    lengths, cosine = cosine_matrix(gramian)
    unit = lengths ** (-2.0 / (1.0 + power))
    matrix = (unit**power * lengths)[:, None] * cosine * (lengths * unit)[None, :]
    side = np.ones_like(unit)
    if power != 1.0:
        # The two sides scale differently; row scaling restores symmetry.
        side = unit ** (1.0 - power)
        matrix = matrix * side[:, None]
    weights = np.ones(len(gramian))

    def value(w: np.ndarray) -> float:
        potential = np.log(w) if power == 1.0 else w ** (1.0 - power) / (1.0 - power)
        return float(0.5 * w @ matrix @ w - side @ potential)

    current = value(weights)
    best = np.inf
    for _ in range(100):
        gradient = matrix @ weights - side * weights**-power
        residual = float(np.max(np.abs(gradient * weights**power / side)))
        if residual < 1e-13 or (residual < 1e-9 and residual >= best):
            break
        best = min(best, residual)
        # Newton: H d = -grad
        hessian = matrix + np.diag(side * power * weights ** (-power - 1.0))
        step = -np.linalg.solve(hessian, gradient)
        # line search from the longest step within w > 0, to sufficient decrease (Armijo)
        shrinking = step < 0
        size = min(1.0, 0.95 * float(np.min(-weights[shrinking] / step[shrinking], initial=np.inf)))
        descent = float(gradient @ step)
        tried, reached = weights, current
        while size > 1e-12:
            tried = weights + size * step
            reached = value(tried)
            # Near the minimum differences are below rounding; the full Newton step is then right.
            if reached <= current + 1e-4 * size * descent or abs(descent) < 1e-12 * abs(current):
                break
            size *= 0.5
        weights, current = tried, reached
    solution: np.ndarray = weights * unit
    return solution
