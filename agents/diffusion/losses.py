"""Losses per sample, before any weighting over tasks."""

from __future__ import annotations

import torch

from mtrl.nn import ChunkNetwork

from .config import NoiseLevels
from .denoiser import preconditioning


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
) -> torch.Tensor:
    """EDM loss per sample, [N] (Karras et al. 2022, equation 8).

    With the weight lambda(sigma) = 1 / c_out^2 the loss is the squared error of the raw network
    output against (clean - c_skip noisy) / c_out. `states` [N, h, D], `chunk` and `noise` [N, H, A],
    `real` [N, H] (0 past the end of a demonstration), `sigma` [N].
    """
    skip, out, into, level = (c[:, None, None] for c in preconditioning(sigma, levels.data_deviation))
    noisy = chunk + sigma[:, None, None] * noise  # x = y + sigma n
    target = (chunk - skip * noisy) / out  # (y - c_skip x) / c_out
    # lambda c_out^2 |F(c_in x, c_noise) - target|^2 with lambda c_out^2 = 1
    raw = network(network.condition(states, task), task, into * noisy, level[:, 0, 0])
    return _masked_mean((raw - target) ** 2, network.chunk_mask(task) * real[:, :, None])


def regression_loss(
    network: ChunkNetwork, states: torch.Tensor, task: torch.Tensor, chunk: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Squared error of the predicted chunk per sample, [N]: behaviour cloning."""
    predicted = regress(network, states, task)
    return _masked_mean((predicted - chunk) ** 2, network.chunk_mask(task) * real[:, :, None])


def regress(network: ChunkNetwork, states: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """The chunk [N, H, A] of behaviour cloning: the network with nothing to denoise."""
    empty = states.new_zeros(len(states), network.shape.chunk, network.actions)
    return network(network.condition(states, task), task, empty, states.new_zeros(len(states)))


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1.0)
