"""The student as it is exported: whatever depends on the task alone is computed once, before export.

A graph for one decision at a time spends most of its time between operators, not in them. The task
embedding, the noise-level features and the first bias become one row of a table per task; the
division by the scale becomes a product that also masks; the constant factors go into the weights.
"""

from __future__ import annotations

import torch
from torch import nn

from mtrl.deployment.artefact.export import fold
from mtrl.nn import ChunkNetwork, ResidualMLP, bounded

from .teacher import FirstStep


class FoldedStudent(nn.Module):
    """Computes what `Student.forward` computes, to rounding, with about half as many operators."""

    shift: torch.Tensor
    factor: torch.Tensor
    noise_mask: torch.Tensor
    table: torch.Tensor
    enter: torch.Tensor
    leave_weight: torch.Tensor
    leave_bias: torch.Tensor

    @torch.no_grad()
    def __init__(self, network: ChunkNetwork, first: FirstStep, takes_noise: bool) -> None:
        """Copies the network's weights."""
        super().__init__()
        shape, torso = network.shape, network.torso
        assert isinstance(torso, ResidualMLP), "a student is an MLP"
        self.skip = first.skip
        self.sizes, self.actions = (shape.chunk, network.columns), network.actions
        self.choices = network.choices
        self.blocks = nn.ModuleList(fold(block) for block in torso.blocks)
        self.norm = torso.norm
        inputs = [
            shape.history * network.mean.shape[1],
            shape.embedding,
            network.noise_size,
            shape.noise_features,
        ]
        # W [x, e, z, f] + b = W_x x + W_z z + (W_e e + W_f f + b), where the last depends on the task alone
        states, embedding, noise, features = torso.enter.weight.split(inputs, dim=1)
        angles = first.level * network.frequencies
        level = torch.cat([angles.sin(), angles.cos()])
        table = network.embedding.weight @ embedding.T + features @ level + torso.enter.bias
        self.register_buffer("table", table)
        used = [states, first.scale * noise] if takes_noise else [states]
        self.register_buffer("enter", torch.cat(used, dim=1).T.contiguous())
        self.register_buffer("shift", network.mean[:, None].clone())
        self.register_buffer("factor", (network.state_mask / network.scale)[:, None])
        tasks = torch.arange(len(network.mean))
        self.register_buffer("noise_mask", network.chunk_mask(tasks).flatten(1).contiguous())
        self.register_buffer("leave_weight", (first.gain * torso.leave.weight).T.contiguous())
        self.register_buffer("leave_bias", first.gain * torso.leave.bias)

    def forward(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        """As `Student.forward`: state [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max]."""
        mask = self.noise_mask[task]
        standardised = ((state - self.shift[task]) * self.factor[task]).clamp(-5.0, 5.0).flatten(1)
        noise = None if z is None else z * mask
        inputs = standardised if noise is None else torch.cat([standardised, noise], dim=1)
        hidden = inputs @ self.enter + self.table[task]
        for block in self.blocks:
            hidden = block(hidden)
        raw = torch.addmm(self.leave_bias, nn.functional.silu(self.norm(hidden)), self.leave_weight)
        if noise is not None:
            raw = raw + self.skip * noise
        chunk, columns = ((raw * mask).reshape(-1, *self.sizes), mask.reshape(-1, *self.sizes))
        return bounded(chunk[:, :, : self.actions], columns[:, :, : self.actions], self.choices)
