"""What an objective is: how a chunk network is trained, and how it plans afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork

from .view import View


class Objective(Protocol):
    """A way to train a chunk network and to plan with it; made of settings and the network."""

    noisy: bool
    """Whether plans are a function of noise z too."""

    @property
    def first_step(self) -> FirstStep:
        """What makes one forward pass of the network a plan, with which a student begins."""

    def draw(self, chunk: torch.Tensor, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """What is random in the losses of chunks [K, B, H, C], each [K, B, ...]; by name an argument of
        `losses`.
        """

    def losses(
        self,
        states: torch.Tensor,
        task: torch.Tensor,
        chunk: torch.Tensor,
        real: torch.Tensor,
        quality: torch.Tensor | None = None,
        **drawn: torch.Tensor,
    ) -> torch.Tensor:
        """Loss per sample [N] of states [N, h, D], task [N], demonstrated chunk [N, H, C] and `real` [N, H],
        which is 0 past the end of a demonstration; or [N, H, C], the weight of every entry. `quality` [N] as
        of `ChunkNetwork.condition`.
        """

    def plan(self, view: View, z: torch.Tensor) -> torch.Tensor:
        """Chunk [N, H, C] within `ChunkNetwork.limit`; `z` [N, H, C] is standard normal, or ignored."""


def entry_weights(mask: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[N, H, C] of a network's `chunk_mask` and of `real`, [N, H] or [N, H, C]."""
    return mask * real.reshape(*real.shape[:2], -1)


def inverse_loss(
    network: ChunkNetwork, states: torch.Tensor, task: torch.Tensor, chunk: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Squared error per sample [N] of actions that are inferred from the true states of a chunk [N, H, C];
    `states` [N, D] are the present ones, `real` [N, H, C]. Actions towards a state past the end of a
    demonstration do not count.
    """
    assert network.inverse is not None, "the network must have the head"
    actions, planned = chunk.tensor_split([network.actions], dim=-1)
    acts, there = real.tensor_split([network.actions], dim=-1)
    reached = (there[..., :1] > 0).repeat_interleave(network.inverse.stride, dim=1)[:, : chunk.shape[1]]
    mask = network.chunk_mask(task)[..., : network.actions] * acts * reached
    return masked_mean((network.inferred(states, planned, task) - actions) ** 2, mask)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean per sample [N] of `values` [N, H, C], weighted by `mask`; 0 where it is 0 everywhere."""
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1.0)
