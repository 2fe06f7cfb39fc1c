"""FAMO: balances the rates at which losses fall, without per-task gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked, at_least

from .base import Weighting, WeightingInputs
from .solvers import Adam, softmax


@dataclass(frozen=True)
class FAMOConfig(Checked):
    learning_rate: Annotated[float, POSITIVE] = 0.025
    """Step of the logits, above 0; the paper's 0.025."""
    weight_decay: Annotated[float, at_least(0)] = 1e-3
    """Pull of the logits towards equal weights, at least 0; the paper's 1e-3."""


class FAMO(Weighting[FAMOConfig]):
    """Algorithm 1 of "FAMO: Fast Adaptive Multitask Optimization" (Liu et al. 2023, arXiv 2306.03792).

    Losses are bounded below by 0.
    """

    needs_gramian = False
    needs_positive_losses = "it descends on the logarithm of each loss"
    needs_post_step = True
    state_names = ("logits", "moments", "step", "before")

    def __init__(self, config: FAMOConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.logits = np.zeros(tasks)
        self.moments = np.zeros((2, tasks))
        self.before: np.ndarray | None = None
        self._adam = Adam(config.learning_rate, config.weight_decay)

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        self.before = inputs.losses + 1e-8
        # z = softmax(xi); a loss of 0 is that of a task without samples
        share = np.where(inputs.losses > 0, softmax(self.logits) / self.before, 0.0)
        if not share.any():
            return share
        # d = c sum_i z_i grad log L_i with c = 1 / sum_i (z_i / L_i)
        weights: np.ndarray = share / share.sum()
        return weights

    def observe_post_step_losses(self, losses: np.ndarray) -> None:
        assert self.before is not None, "expected `weights` before `observe_post_step_losses`"
        gained = np.log(self.before) - np.log(np.maximum(losses, 0.0) + 1e-8)
        gained[self.before <= 1e-8] = 0.0
        share = softmax(self.logits)
        self.step += 1
        # delta = (d z / d xi)^T (log L(theta_t) - log L(theta_t+1)); xi descends on it with decay gamma
        self.logits, self.moments = self._adam.step(
            self.logits, share * (gained - share @ gained), self.moments, self.step
        )
