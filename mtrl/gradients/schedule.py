"""The weights of the tasks from step to step: solved for, kept in between, smoothed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .jacobian import TaskRows
from .weightings import Weighting, WeightingInputs


class WeightingSchedule:
    """Solves for weights every `every` steps, and smooths them over time."""

    def __init__(self, weighting: Weighting[Any], tasks: int, every: int, smoothing: float) -> None:
        """`smoothing` in [0, 1) is the share of the previous weights (CR-MOGM, Zhou et al. 2022)."""
        self.weighting = weighting
        self.steps = 0
        """Steps taken, solved for or not."""
        self.solved = False
        """Whether the latest step found weights of its own."""
        self._tasks, self._every, self._smoothing = tasks, every, smoothing
        self._weights: np.ndarray | None = None
        self._previous: dict[str, torch.Tensor] = {}

    @property
    def due(self) -> bool:
        """Whether the next step solves for weights."""
        return self._weights is None or self.steps % self._every == 0

    def weights(
        self, losses: np.ndarray, gramian: torch.Tensor | None, previous: np.ndarray | None = None
    ) -> torch.Tensor:
        """[K] float64, the weights of this step, from its losses [K], Gramian [K, K] and
        `products_with_previous` [K, K].
        """
        self.solved = self._tasks > 1 and self.due
        self.steps += 1
        if self._tasks == 1:
            return torch.ones(1, dtype=torch.float64)
        if self._weights is None or self.solved:
            inputs = WeightingInputs(losses, None if gramian is None else gramian.numpy(), previous)
            weights = self.weighting.weights(inputs)
            if self._weights is not None and self._smoothing > 0:
                # w_t = lambda w_(t-1) + (1 - lambda) w
                weights = self._smoothing * self._weights + (1 - self._smoothing) * weights
            self._weights = weights
        return torch.from_numpy(self._weights.copy())

    def products_with_previous(self, rows: TaskRows) -> np.ndarray | None:
        """[K, K], inner products of the gradients with those of the step before, a column each; None at the
        first step and for a weighting that needs none.
        """
        if not self.weighting.needs_previous:
            return None
        products = rows.products(self._previous).numpy() if self._previous else None
        self._previous = {name: values.clone() for name, values in rows.shared.items()}
        return products

    def observe_post_step_losses(self, losses: torch.Tensor) -> None:
        """Passes losses [K] of the same batch after the update to the weighting; those that are not finite
        are ignored, since the next step raises for them.
        """
        values = losses.detach().double().cpu().numpy()
        if self.solved and np.isfinite(values).all():
            self.weighting.observe_post_step_losses(values)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "weighting": self.weighting.state_dict(),
            "updates": self.steps,
            "weights": None if self._weights is None else torch.from_numpy(self._weights.copy()),
            "previous": dict(self._previous),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weighting.load_state_dict(state["weighting"])
        self.steps = state["updates"]
        self._weights = None if state["weights"] is None else state["weights"].numpy().copy()
        self._previous = dict(state["previous"])
