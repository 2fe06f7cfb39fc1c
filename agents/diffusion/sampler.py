"""Deterministic sampling: Euler steps along the probability-flow ODE on the EDM noise grid."""

from __future__ import annotations

import itertools

import torch

from mtrl.nn import ChunkNetwork

from .config import NoiseLevels
from .denoiser import Denoiser


def sigma_grid(levels: NoiseLevels, steps: int) -> torch.Tensor:
    """sigma_0 = maximum ... sigma_{K-1} = minimum, sigma_K = 0, shape [K + 1] (Karras, equation 5)."""
    if steps == 1:
        return torch.tensor([levels.maximum, 0.0])
    rho = levels.curvature
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = levels.maximum ** (1 / rho), levels.minimum ** (1 / rho)
    grid = (high + ramp * (low - high)) ** rho
    return torch.cat([grid, torch.zeros(1, dtype=torch.float64)]).float()


@torch.no_grad()
def sample(
    denoiser: Denoiser, states: torch.Tensor, task: torch.Tensor, noise: torch.Tensor, steps: int
) -> torch.Tensor:
    """Clean chunks [N, H, A] in [-1, 1] from standard normal `noise` [N, H, A].

    A function of the noise alone, so that a student can be taught the same mapping. `states`
    [N, h, D_max], `task` [N].
    """
    network: ChunkNetwork = denoiser.network
    condition = network.condition(states, task)
    mask = network.chunk_mask(task)
    grid = sigma_grid(denoiser.levels, steps)
    noisy = noise * grid[0] * mask
    for now, then in itertools.pairwise(grid):
        clean = denoiser(condition, task, noisy, now.expand(len(noisy)))
        noisy = noisy + (then - now) * (noisy - clean) / now
    return noisy.clamp(-1.0, 1.0)
