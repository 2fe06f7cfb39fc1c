"""EDM preconditioning around the chunk network (Karras et al. 2022, arXiv 2206.00364, table 1)."""

from __future__ import annotations

import torch
from torch import nn

from mtrl.nn import ChunkNetwork

from .config import NoiseLevels


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): the expected clean chunk (equation 7)."""

    def __init__(self, network: ChunkNetwork, levels: NoiseLevels) -> None:
        """`network` is F."""
        super().__init__()
        self.network = network
        self.levels = levels

    def forward(
        self, condition: torch.Tensor, task: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """`noisy` [N, H, A], `sigma` [N] above 0 -> clean chunk [N, H, A]."""
        skip, out, into, level = preconditioning(sigma, self.levels.data_deviation)
        scaled = into[:, None, None] * noisy
        raw = self.network(condition, task, scaled, level)
        return skip[:, None, None] * noisy + out[:, None, None] * raw


def preconditioning(
    sigma: torch.Tensor, data_deviation: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(c_skip, c_out, c_in, c_noise) of table 1, each shaped like `sigma`."""
    total = sigma**2 + data_deviation**2
    root = total.sqrt()
    return data_deviation**2 / total, sigma * data_deviation / root, 1 / root, sigma.log() / 4
