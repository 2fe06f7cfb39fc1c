"""Nash-MTL: the bargaining solution between tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked

from .base import GramianWeighting
from .fairgrad import fair_weights
from .solvers import regularised


@dataclass(frozen=True)
class NashMTLConfig(Checked):
    max_norm: Annotated[float, POSITIVE] = 1.0
    """Longest update; above 0. The solution of K tasks has length sqrt(K), so the paper's 1 always binds."""
    regularisation: Annotated[float, POSITIVE] = 1e-4
    """Share by which the diagonal is raised where the Gramian lacks full rank; above 0."""


class NashMTL(GramianWeighting[NashMTLConfig]):
    """The bargaining solution of section 3 of "Multi-Task Learning as a Bargaining Game" (Navon et al.
    2022, arXiv 2202.01017), by Newton's method instead of the paper's sequence of convex programs.

    Invariant to the scale of each loss. Where the Gramian G lacks full rank it is regularised and `deficient`
    is set.
    """

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        sound, self.deficient = regularised(gramian, self.config.regularisation)
        # claim 3.1: G alpha = 1 / alpha, the paper's G^T G alpha with its G the gradients
        weights = fair_weights(sound, 1.0)
        length = float(np.sqrt(max(weights @ gramian @ weights, 0.0)))
        # shortened to |sum_k alpha_k g_k| <= max_norm
        return weights * min(1.0, self.config.max_norm / length) if length > 0 else weights
