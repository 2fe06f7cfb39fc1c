"""Dynamic weight average: tasks whose losses fall slowly weigh more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked, at_least

from .base import Weighting, WeightingInputs
from .solvers import softmax


@dataclass(frozen=True)
class DWAConfig(Checked):
    temperature: Annotated[float, POSITIVE] = 2.0
    """Above 0; larger is more even. The paper's 2."""
    period: Annotated[int, at_least(1)] = 1000
    """Steps over which losses are averaged before they are compared, at least 1; the paper takes an epoch."""


class DWA(Weighting[DWAConfig]):
    """Dynamic weight average of "End-to-End Multi-Task Learning with Attention" (Liu et al. 2019, arXiv
    1803.10704).
    """

    needs_gramian = False
    needs_positive_losses = "it compares mean losses of successive periods as a ratio"
    state_names = ("current", "total", "last", "step")

    def __init__(self, config: DWAConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.current = np.ones(tasks)
        self.total = np.zeros(tasks)
        self.last: np.ndarray | None = None

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        self.total = self.total + inputs.losses
        self.step += 1
        if self.step % self.config.period == 0:
            mean = self.total / self.config.period
            if self.last is not None:
                # w_k(t - 1) = L_k(t - 1) / L_k(t - 2); a mean of 0 is that of a task without samples
                ratio = np.divide(mean, self.last, out=np.ones(self.tasks), where=self.last > 0)
                # lambda_k(t) = K exp(w_k(t - 1) / T) / sum_i exp(w_i(t - 1) / T)
                self.current = self.tasks * softmax(ratio / self.config.temperature)
            self.last = mean
            self.total = np.zeros(self.tasks)
        return self.current.copy()
