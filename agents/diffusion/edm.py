"""The objective "diffusion": EDM denoising (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig, NoiseLevels
from .denoiser import Denoiser, preconditioning, sample
from .objective import entry_weights, masked_mean
from .view import Estimate, View


class EDM:
    """Learns the clean chunk from a noisy one; plans by integrating the probability-flow equation."""

    noisy = True

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights."""
        self.levels, self._steps = config.noise, config.sampler_steps
        self._network, self._denoiser = network, Denoiser(network, config.noise)

    def denoise(self, sigma: torch.Tensor) -> Estimate:
        """The estimate of the clean chunk at noise levels `sigma` [N], or twice as many rows of them."""

        def estimate(condition: torch.Tensor, task: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
            repeats = len(noisy) // len(sigma)
            clean: torch.Tensor = self._denoiser(condition, task, noisy, sigma.repeat(repeats))
            return clean

        return estimate

    @property
    def first_step(self) -> FirstStep:
        """One denoising step from sigma_max to 0: D(sigma_max z, sigma_max)."""
        sigma = torch.tensor(self.levels.maximum)
        skip, out, into, level = preconditioning(sigma, self.levels.data_deviation)
        return FirstStep(
            scale=float(into * sigma), skip=float(skip * sigma), gain=float(out), level=float(level)
        )

    def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """Noise levels `sigma` [K, B] and `noise` [K, B, H, A]."""
        rows = chunk.shape[:2]
        sigma = draw_sigma(self.levels, rows.numel(), generator).view(rows)
        return {"sigma": sigma, "noise": torch.randn(chunk.shape, generator=generator)}

    def losses(
        self,
        states: torch.Tensor,
        task: torch.Tensor,
        chunk: torch.Tensor,
        real: torch.Tensor,
        quality: torch.Tensor | None = None,
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """`denoising_loss`."""
        return denoising_loss(self._network, self.levels, states, task, chunk, real, quality=quality, **drawn)

    def plan(self, view: View, z: torch.Tensor) -> torch.Tensor:
        """`sampler_steps` Euler steps from sigma_max z."""
        return sample(self._denoiser, view, z, self._steps)


def draw_sigma(levels: NoiseLevels, count: int, generator: torch.Generator) -> torch.Tensor:
    """ln sigma ~ N(train_mean, train_deviation^2), shape [count] (Karras et al. 2022, table 1)."""
    normal = torch.randn(count, generator=generator)
    return (levels.train_mean + levels.train_deviation * normal).exp()


def denoising_loss(
    network: ChunkNetwork,
    levels: NoiseLevels,
    states: torch.Tensor,
    task: torch.Tensor,
    chunk: torch.Tensor,
    real: torch.Tensor,
    sigma: torch.Tensor,
    noise: torch.Tensor,
    quality: torch.Tensor | None = None,
) -> torch.Tensor:
    """EDM loss per sample, [N] (Karras et al. 2022, equation 8).

    With the weight lambda(sigma) = 1 / c_out^2 the loss is the squared error of the raw network
    output against (clean - c_skip noisy) / c_out. `states` [N, h, D], `chunk` and `noise` [N, H, C],
    `real` [N, H] (0 past the end of a demonstration) or [N, H, C], `sigma` and `quality` [N].
    """
    skip, out, into, level = (c[:, None, None] for c in preconditioning(sigma, levels.data_deviation))
    noisy = chunk + sigma[:, None, None] * noise  # x = y + sigma n
    target = (chunk - skip * noisy) / out  # (y - c_skip x) / c_out
    # lambda c_out^2 |F(c_in x, c_noise) - target|^2 with lambda c_out^2 = 1
    raw = network(network.condition(states, task, quality), task, into * noisy, level[:, 0, 0])
    return masked_mean((raw - target) ** 2, entry_weights(network.chunk_mask(task), real))
