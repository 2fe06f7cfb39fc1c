"""Task weights of MT-GRPO (arXiv 2602.05547), section 4.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import WeightConfig

Vector = npt.NDArray[np.float64]

SCALE_MEMORY = 0.9
"""Share of the usual size of an improvement that a minibatch keeps."""


class TaskWeights:
    """z = softmax(xi), descended along g_k = z_k (s_k - sum_j z_j s_j) with s = I + lambda J, so that tasks
    of little improvement and success gain weight.
    """

    def __init__(self, config: WeightConfig, tasks: int, steps: int) -> None:
        """K `tasks`; `steps` of the logits per round share its step size."""
        self._config, self._rate = config, config.learning_rate / steps
        self.logits = np.zeros(tasks)
        """xi [K]"""
        self.success = np.full(tasks, np.nan)
        """J [K], moving average of unfiltered success rates or normalised scores, NaN before the first."""
        self._moments = np.zeros((2, tasks))
        self._steps = 0
        self._usual = 0.0
        """Moving average of |J_new - J_old| of the objective, over tasks."""

    @property
    def weights(self) -> Vector:
        """z [K], sums to 1, each at least floor / K."""
        exponential = np.exp(self.logits - self.logits.max())
        z: Vector = exponential / exponential.sum()
        floor = self._config.floor
        return floor / len(z) + (1.0 - floor) * z

    def observe(self, success: Vector) -> None:
        """Takes the round's rates [K], NaN for a task without an episode."""
        kept = self._config.memory
        mixed = np.where(np.isnan(self.success), success, kept * self.success + (1.0 - kept) * success)
        self.success = np.where(np.isnan(success), self.success, mixed)

    def improvements(self, change: Vector) -> Vector:
        """I [K] of changes of the tasks' mean objective in a minibatch, NaN where a task is absent:
        clip(c change / usual size), which neither the number of groups nor the size of a step changes.
        """
        there = ~np.isnan(change)
        if not there.any():
            return np.zeros(len(change))
        size = float(np.abs(change[there]).mean())
        self._usual = size if self._usual == 0 else SCALE_MEMORY * self._usual + (1.0 - SCALE_MEMORY) * size
        scaled = self._config.improvement * np.nan_to_num(change) / max(self._usual, 1e-12)
        limit = self._config.improvement_limit
        return np.clip(scaled, -limit, limit)

    def step(self, improvement: Vector) -> None:
        """One step of the logits, for I [K]."""
        # s_k = I_k + lambda J_k
        self.descend(improvement + self._config.tradeoff * np.nan_to_num(self.success))

    def descend(self, score: Vector) -> None:
        """One step of the logits for s [K]."""
        exponential = np.exp(self.logits - self.logits.max())
        z = exponential / exponential.sum()
        # g_k = z_k (s_k - sum_j z_j s_j)
        gradient = z * (score - z @ score)
        if self._config.optimiser == "sgd":
            self.logits = self.logits - self._rate * gradient
            return
        # AdamW (Loshchilov and Hutter 2019, algorithm 2)
        self._steps += 1
        first, second = 0.9, 0.999
        self._moments[0] = first * self._moments[0] + (1.0 - first) * gradient
        self._moments[1] = second * self._moments[1] + (1.0 - second) * gradient**2
        mean = self._moments[0] / (1.0 - first**self._steps)
        square = self._moments[1] / (1.0 - second**self._steps)
        decayed = self.logits * (1.0 - self._rate * self._config.weight_decay)
        self.logits = decayed - self._rate * mean / (np.sqrt(square) + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "logits": self.logits.copy(),
            "success": self.success.copy(),
            "moments": self._moments.copy(),
            "steps": self._steps,
            "usual": self._usual,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.logits, self.success = state["logits"].copy(), state["success"].copy()
        self._moments, self._steps = state["moments"].copy(), int(state["steps"])
        self._usual = float(state["usual"])
