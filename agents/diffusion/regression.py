"""The objective "regression": behaviour cloning by squared error."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig
from .objective import entry_weights, masked_mean
from .view import View


class Regression:
    """The network with nothing to denoise."""

    noisy = False
    first_step = FirstStep(scale=0.0, skip=0.0, gain=1.0, level=0.0)
    """All of it."""

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights."""
        self._network = network

    def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Nothing."""
        return {}

    def losses(
        self,
        states: torch.Tensor,
        task: torch.Tensor,
        chunk: torch.Tensor,
        real: torch.Tensor,
        quality: torch.Tensor | None = None,
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """Squared error of the predicted chunk."""
        empty = torch.zeros_like(chunk)
        predicted = self._predicted(self._network.condition(states, task, quality), task, empty)
        return masked_mean((predicted - chunk) ** 2, entry_weights(self._network.chunk_mask(task), real))

    @torch.no_grad()
    def plan(self, view: View, z: torch.Tensor) -> torch.Tensor:
        """The prediction, clipped."""
        empty = torch.zeros_like(self._network.chunk_mask(view.task))
        return self._network.limit(view.clean(self._predicted, empty))

    def _predicted(self, condition: torch.Tensor, task: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._network(condition, task, empty, empty.new_zeros(len(empty)))
        return result
