"""A transformer over the actions of a chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChunkTransformer(nn.Module):
    """Attention among one token of what the network is conditioned on, one of the noise level and one of
    every action; pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745) of width 4 `width` inside, without
    dropout.

    Takes and returns what `ResidualMLP` does, so that either is the torso of a `ChunkNetwork`. The output
    layer starts at zero, so that a new network predicts 0.
    """

    def __init__(
        self, condition: int, features: int, chunk: int, actions: int, width: int, blocks: int, heads: int
    ) -> None:
        """[N, condition + chunk * actions + features] -> [N, chunk * actions]; `heads` divides `width`."""
        super().__init__()
        self.sizes = [condition, chunk * actions, features]
        self.chunk = chunk
        self.see, self.level = nn.Linear(condition, width), nn.Linear(features, width)
        self.act = nn.Linear(actions, width)
        self.place = nn.Parameter(0.02 * torch.randn(chunk + 2, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, actions)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, inputs] -> [N, outputs]"""
        condition, chunk, features = inputs.split(self.sizes, dim=-1)
        actions = self.act(chunk.unflatten(-1, (self.chunk, -1)))
        tokens = torch.cat([self.see(condition)[:, None], self.level(features)[:, None], actions], dim=1)
        seen: Tensor = self.leave(self.norm(self.blocks(tokens + self.place))[:, 2:])
        return seen.flatten(1)
