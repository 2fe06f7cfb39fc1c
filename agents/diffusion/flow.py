"""The objective "flow": rectified flow (Liu et al. 2022, arXiv 2209.03003) with logit-normal time (Esser et
al. 2024, arXiv 2403.03206).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig
from .objective import entry_weights, masked_mean
from .view import View


class Flow:
    """Learns the velocity from noise at t = 0 to the chunk at t = 1 along straight lines."""

    noisy = True
    first_step = FirstStep(scale=1.0, skip=1.0, gain=1.0, level=0.0)
    """One Euler step from 0 to 1: z + v(z, 0)."""

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights."""
        self._times, self._steps, self._network = config.flow, config.sampler_steps, network

    def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Times `time` [K, B] in (0, 1), logit(t) ~ N(mean, deviation^2), and `noise` [K, B, H, A]."""
        normal = torch.randn(chunk.shape[:2], generator=generator)
        time = torch.sigmoid(self._times.mean + self._times.deviation * normal)
        return {"time": time, "noise": torch.randn(chunk.shape, generator=generator)}

    def losses(
        self,
        states: torch.Tensor,
        task: torch.Tensor,
        chunk: torch.Tensor,
        real: torch.Tensor,
        quality: torch.Tensor | None = None,
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """|v(x_t, t) - (a - noise)|^2 at x_t = (1 - t) noise + t a (equation 1 of rectified flow)."""
        time, noise = drawn["time"], drawn["noise"]
        between = torch.lerp(noise, chunk, time[:, None, None])
        velocity = self._network(self._network.condition(states, task, quality), task, between, time)
        mask = entry_weights(self._network.chunk_mask(task), real)
        return masked_mean((velocity - (chunk - noise)) ** 2, mask)

    @torch.no_grad()
    def plan(self, view: View, z: torch.Tensor) -> torch.Tensor:
        """`sampler_steps` Euler steps of equal length from z."""
        chunk = z * self._network.chunk_mask(view.task)
        for step in range(self._steps):
            time = step / self._steps

            def estimate(
                condition: torch.Tensor, task: torch.Tensor, chunk: torch.Tensor, time: float = time
            ) -> torch.Tensor:
                # where the line through x_t ends: x_1 = x_t + (1 - t) v
                velocity = self._network(condition, task, chunk, chunk.new_full((len(chunk),), time))
                end: torch.Tensor = chunk + (1.0 - time) * velocity
                return end

            # a step of 1 / K along (x_1 - x_t) / (1 - t)
            chunk = chunk + (view.clean(estimate, chunk) - chunk) / (self._steps - step)
        return self._network.limit(chunk)
