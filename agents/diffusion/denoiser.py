"""EDM (Karras et al. 2022, arXiv 2206.00364): the preconditioned denoiser, the noise grid and the sampler."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from mtrl.nn import ChunkNetwork

from .config import NoiseLevels
from .view import View


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): the expected clean chunk (equation 7)."""

    def __init__(self, network: ChunkNetwork, levels: NoiseLevels) -> None:
        """`network` is F of the equation."""
        super().__init__()
        self.network = network
        self.levels = levels

    def forward(
        self, condition: torch.Tensor, task: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """`noisy` [N, H, A], `sigma` [N] above 0 -> clean chunk [N, H, A]."""
        skip, out, into, level = preconditioning(sigma, self.levels.data_deviation)
        raw = self.network(condition, task, into[:, None, None] * noisy, level)  # F(c_in x, c_noise)
        return skip[:, None, None] * noisy + out[:, None, None] * raw


def preconditioning(
    sigma: torch.Tensor, data_deviation: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(c_skip, c_out, c_in, c_noise) of table 1, each shaped like `sigma`."""
    total = sigma**2 + data_deviation**2
    root = total.sqrt()
    return (
        data_deviation**2 / total,  # c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)
        sigma * data_deviation / root,  # c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)
        1 / root,  # c_in = 1 / sqrt(sigma^2 + sigma_data^2)
        sigma.log() / 4,  # c_noise = ln(sigma) / 4
    )


def sigma_grid(levels: NoiseLevels, steps: int) -> torch.Tensor:
    """sigma_0 = maximum, ..., sigma_{K-1} = minimum, sigma_K = 0, shape [K + 1] (equation 5); [maximum, 0]
    for K = 1.
    """
    if steps == 1:
        return torch.tensor([levels.maximum, 0.0])
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = levels.maximum ** (1 / levels.rho), levels.minimum ** (1 / levels.rho)
    # equation 5: (max^(1/rho) + i / (K - 1) (min^(1/rho) - max^(1/rho)))^rho for step i
    grid = (high + ramp * (low - high)) ** levels.rho
    return torch.cat([grid, torch.zeros(1, dtype=torch.float64)]).float()


@torch.no_grad()
def sample(denoiser: Denoiser, view: View, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Clean chunks [N, H, C] within limits, a function of standard normal `noise` [N, H, C]: algorithm 1
    without churn and without its second-order correction.
    """
    grid = sigma_grid(denoiser.levels, steps)
    mask = denoiser.network.chunk_mask(view.task)
    if view.begin is None:
        noisy = noise * grid[0] * mask  # x_0 ~ N(0, sigma_0^2)
    else:
        # the levels from `warm` on, the smallest at least
        grid = grid[min(int((grid > view.warm).sum()), steps - 1) :]
        noisy = (view.begin + noise * grid[0]) * mask
    for sigma, smaller in itertools.pairwise(grid):

        def estimate(
            condition: torch.Tensor, task: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor = sigma
        ) -> torch.Tensor:
            clean: torch.Tensor = denoiser(condition, task, noisy, sigma.expand(len(noisy)))
            return clean

        # x_{i+1} = x_i + (sigma_{i+1} - sigma_i) (x_i - D(x_i, sigma_i)) / sigma_i, an Euler step of the
        # probability-flow ODE
        noisy = noisy + (smaller - sigma) * (noisy - view.clean(estimate, noisy)) / sigma
    return denoiser.network.limit(noisy)
