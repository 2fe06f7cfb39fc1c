"""GradNorm: weights that balance the lengths of task gradients by how fast tasks learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked, at_least

from .base import Weighting, WeightingInputs, require_gramian


@dataclass(frozen=True)
class GradNormConfig(Checked):
    alpha: Annotated[float, at_least(0)] = 1.5
    """How strongly slow tasks are pulled, at least 0; the paper takes 1.5 and 0.12."""
    learning_rate: Annotated[float, POSITIVE] = 0.025
    """Step of the weights, above 0; the paper's 0.025."""


class GradNorm(Weighting[GradNormConfig]):
    """Algorithm 1 of "GradNorm" (Chen et al. 2018, arXiv 1711.02257); reads only the diagonal of G."""

    needs_positive_losses = "it compares each loss with its first value as a ratio"
    state_names = ("current", "first")

    def __init__(self, config: GradNormConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.current = np.ones(tasks)
        self.first: np.ndarray | None = None

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        # a loss of 0, that of a task without samples yet, is no first value
        known = np.zeros(self.tasks) if self.first is None else self.first
        self.first = np.where(known > 0, known, inputs.losses)
        lengths = np.sqrt(np.diag(require_gramian(inputs)))
        # r_i = (L_i(t) / L_i(0)) / mean_j (L_j(t) / L_j(0)), the inverse training rate
        ratio = np.divide(inputs.losses, self.first, out=np.ones(self.tasks), where=self.first > 0)
        rate = ratio / ratio.mean() if ratio.any() else np.ones(self.tasks)
        # G_i = |w_i g_i| and its mean over tasks
        scaled = self.current * lengths
        mean = scaled.mean()
        if mean > 0:
            # d/dw_i of L_grad = sum_i |G_i - mean r_i^alpha|, the target held constant, over the mean
            gradient = np.sign(scaled - mean * rate**self.config.alpha) * lengths / mean
            moved = np.maximum(self.current - self.config.learning_rate * gradient, 1e-6)
            # renormalised to sum_i w_i = K
            self.current = moved * self.tasks / moved.sum()
        return self.current.copy()
