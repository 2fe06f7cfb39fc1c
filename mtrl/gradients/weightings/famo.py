"""FAMO: balances the rates at which losses fall, without per-task gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrl.errors import OutOfRangeError

from .base import Evidence, Weighting
from .solvers import Adam


@dataclass(frozen=True)
class FAMOConfig:
    """Settings of FAMO."""

    learning_rate: float = 0.025
    """Step of the logits, above 0; the paper's 0.025."""
    weight_decay: float = 1e-3
    """Pull of the logits towards equal weights, at least 0; the paper's 1e-3."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise OutOfRangeError("learning_rate", self.learning_rate, "a number above 0")
        if not self.weight_decay >= 0:
            raise OutOfRangeError("weight_decay", self.weight_decay, "a number of at least 0")


class FAMO(Weighting):
    """Algorithm 1 of "FAMO: Fast Adaptive Multitask Optimization" (Liu et al. 2023, arXiv 2306.03792).

    Weights are c z_i / L_i with z = softmax(logits) and 1 / c = sum_i z_i / L_i, the gradient of c sum z_i
    log L_i; after the step the logits follow by how much each log loss of the same batch fell. Losses are
    bounded below by 0.
    """

    needs_gramian = False
    needs_positive_losses = "it descends on the logarithm of each loss"
    needs_post_step = True

    def __init__(self, config: FAMOConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.logits = np.zeros(tasks)
        self.moments = np.zeros((2, tasks))
        self.step = 0
        self.before: np.ndarray | None = None
        self._adam = Adam(config.learning_rate, config.weight_decay)

    def weights(self, evidence: Evidence) -> np.ndarray:
        self.before = evidence.losses + 1e-8
        # A loss of 0 is that of a task without samples.
        share = np.where(evidence.losses > 0, softmax(self.logits) / self.before, 0.0)
        if not share.any():
            return share
        weights: np.ndarray = share / share.sum()
        return weights

    def observe_post_step_losses(self, losses: np.ndarray) -> None:
        assert self.before is not None, "weights come before what they led to"
        gained = np.log(self.before) - np.log(np.maximum(losses, 0.0) + 1e-8)
        gained[self.before <= 1e-8] = 0.0
        chance = softmax(self.logits)
        self.step += 1
        self.logits, self.moments = self._adam.step(
            self.logits, chance * (gained - chance @ gained), self.moments, self.step
        )

    def _state_names(self) -> tuple[str, ...]:
        return ("logits", "moments", "step", "before")


def softmax(logits: np.ndarray) -> np.ndarray:
    """[K], positive with sum 1."""
    raised = np.exp(logits - logits.max())
    found: np.ndarray = raised / raised.sum()
    return found
