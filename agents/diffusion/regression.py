"""The objective "regression": behaviour cloning by squared error."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig
from .objective import masked_mean


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
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """Squared error of the predicted chunk."""
        mask = self._network.chunk_mask(task) * real[:, :, None]
        return masked_mean((self._predicted(states, task) - chunk) ** 2, mask)

    @torch.no_grad()
    def plan(self, states: torch.Tensor, task: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """The prediction, clipped."""
        return self._predicted(states, task).clamp(-1.0, 1.0)

    def _predicted(self, states: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        network = self._network
        empty = states.new_zeros(len(states), network.shape.chunk, network.actions)
        result: torch.Tensor = network(
            network.condition(states, task), task, empty, states.new_zeros(len(states))
        )
        return result
