"""The objective "mip": the minimal iterative policy (Pan et al. 2025, arXiv 2512.01809)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig
from .objective import entry_weights, masked_mean
from .view import View


class MinimalIterative:
    """Regression, then a second pass that was trained to correct a slightly wrong chunk; no sampling."""

    noisy = False
    first_step = FirstStep(scale=0.0, skip=0.0, gain=1.0, level=0.0)
    """The first of the two passes."""

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights."""
        self._time, self._network = config.mip_time, network

    def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """The `noise` [K, B, H, A] of the second pass."""
        return {"noise": torch.randn(chunk.shape, generator=generator)}

    def losses(
        self,
        states: torch.Tensor,
        task: torch.Tensor,
        chunk: torch.Tensor,
        real: torch.Tensor,
        quality: torch.Tensor | None = None,
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """|f(0, 0) - a|^2 / t^2 + |f(a + (1 - t) noise, t) - a|^2 / (1 - t)^2 at t = `mip_time`, as the
        authors' program has it; the paper's second input is t a + (1 - t) noise.
        """
        condition, rest = self._network.condition(states, task, quality), 1.0 - self._time
        first = self._pass(condition, task, torch.zeros_like(chunk), 0.0)
        second = self._pass(condition, task, chunk + rest * drawn["noise"], self._time)
        errors = (first - chunk) ** 2 / self._time**2 + (second - chunk) ** 2 / rest**2
        return masked_mean(errors, entry_weights(self._network.chunk_mask(task), real))

    @torch.no_grad()
    def plan(self, view: View, z: torch.Tensor) -> torch.Tensor:
        """f(f(0, 0), t): two passes."""
        chunk = torch.zeros_like(self._network.chunk_mask(view.task))
        for time in (0.0, self._time):
            chunk = view.clean(partial(self._pass, time=time), chunk)
        return self._network.limit(chunk)

    def _pass(
        self, condition: torch.Tensor, task: torch.Tensor, chunk: torch.Tensor, time: float
    ) -> torch.Tensor:
        result: torch.Tensor = self._network(condition, task, chunk, chunk.new_full((len(chunk),), time))
        return result
