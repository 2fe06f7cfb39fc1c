"""Uncertainty weighting: each loss divided by a learnt variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked

from .base import Weighting, WeightingInputs
from .solvers import Adam


@dataclass(frozen=True)
class UncertaintyConfig(Checked):
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Step of the log variances (Adam), above 0."""
    initial: float = 0.0
    """Log variance at the start."""


class Uncertainty(Weighting[UncertaintyConfig]):
    """Section 3.2 of "Multi-Task Learning Using Uncertainty to Weigh Losses" (Kendall et al. 2018, arXiv
    1705.07115), with log variances s = log sigma^2.
    """

    needs_gramian = False
    needs_positive_losses = "a negative loss would drive its variance to 0 and its weight to infinity"
    state_names = ("log_variance", "moments", "step")

    def __init__(self, config: UncertaintyConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.log_variance = np.full(tasks, config.initial)
        self.moments = np.zeros((2, tasks))
        self._adam = Adam(config.learning_rate)

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        # equation 7 of Kendall et al.: sum_i L_i / (2 sigma_i^2) + log sigma_i = sum_i exp(-s_i) L_i / 2 +
        # s_i / 2
        weights = 0.5 * np.exp(-self.log_variance)
        self.step += 1
        # its derivative by s_i is (1 - exp(-s_i) L_i) / 2
        self.log_variance, self.moments = self._adam.step(
            self.log_variance, 0.5 - weights * inputs.losses, self.moments, self.step
        )
        return weights
