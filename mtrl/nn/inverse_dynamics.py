"""Actions from the states that they lead through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .residual import ResidualMLP


class InverseDynamics(nn.Module):
    """The actions between states that are `stride` decisions apart (Ajay et al. 2023, arXiv 2211.15657,
    equation 7, where it is one decision).
    """

    def __init__(
        self, states: int, embedding: int, actions: int, stride: int, width: int, blocks: int
    ) -> None:
        """A new one infers 0."""
        super().__init__()
        self.stride, self.actions = stride, actions
        self.torso = ResidualMLP(2 * states + embedding, stride * actions, width, blocks)

    def forward(self, path: Tensor, embedded: Tensor) -> Tensor:
        """States [N, J + 1, D] and the embedding of their task [N, E] -> actions [N, J stride, A]."""
        steps = path.shape[1] - 1
        inputs = torch.cat([path[:, :-1], path[:, 1:], embedded[:, None].expand(-1, steps, -1)], dim=-1)
        return self.torso(inputs).reshape(len(path), steps * self.stride, self.actions)
