"""The plain sum or mean of the gradients, with fixed weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Weighting, WeightingInputs


@dataclass(frozen=True)
class SumConfig:
    mean: bool = False
    """Whether to divide by the number of tasks."""


class Sum(Weighting[SumConfig]):
    """Every task weighs 1 (1 / K with `mean`): the plain gradient, as a baseline."""

    needs_gramian = False

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        return np.full(self.tasks, 1.0 / self.tasks if self.config.mean else 1.0)
