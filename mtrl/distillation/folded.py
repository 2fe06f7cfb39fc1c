"""The student as it is exported: whatever depends on the task alone is computed once, before export.

A graph for one decision at a time spends most of its time between operators, not in them. The task
embedding, the noise-level features and the first bias become one row of a table per task; the
division by the scale becomes a product that also masks; the constant factors go into the weights.
"""

from __future__ import annotations

import torch
from torch import nn

from mtrl.nn import ResidualBlock

from .student import Student


class _FoldedBlock(nn.Module):
    """A residual block whose weights stand as [inputs, outputs], which a single row reads faster."""

    expand: torch.Tensor
    contract: torch.Tensor
    expand_bias: torch.Tensor
    contract_bias: torch.Tensor

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, ResidualBlock), "the torso is made of residual blocks"
        self.norm = block.norm
        self.register_buffer("expand", block.expand.weight.detach().T.contiguous())
        self.register_buffer("contract", block.contract.weight.detach().T.contiguous())
        self.register_buffer("expand_bias", block.expand.bias.detach())
        self.register_buffer("contract_bias", block.contract.bias.detach())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = torch.addmm(self.expand_bias, self.norm(hidden), self.expand)
        return hidden + torch.addmm(self.contract_bias, nn.functional.silu(inner), self.contract)


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
    def __init__(self, student: Student) -> None:
        """Copies what it needs; the student may go on learning."""
        super().__init__()
        network, frame, shape = student.network, student.form.first_step, student.form.network
        self.skip = frame.skip
        self.sizes = (shape.chunk, network.actions)
        self.blocks = nn.ModuleList(_FoldedBlock(block) for block in network.torso.blocks)
        self.norm = network.torso.norm
        weight, bias = network.torso.enter.weight, network.torso.enter.bias
        parts = weight.split(
            [
                shape.history * network.mean.shape[1],
                shape.embedding,
                network.noise_size,
                shape.noise_features,
            ],
            dim=1,
        )
        states, embedding, noise, features = parts
        angles = frame.level * network.frequencies
        told = torch.cat([angles.sin(), angles.cos()])
        self.register_buffer("table", network.embedding.weight @ embedding.T + features @ told + bias)
        seen = [states, frame.scale * noise] if student.form.noise_size else [states]
        self.register_buffer("enter", torch.cat(seen, dim=1).T.contiguous())
        self.register_buffer("shift", network.mean[:, None].clone())
        self.register_buffer("factor", (network.state_mask / network.scale)[:, None])
        every = torch.arange(len(network.mean))
        self.register_buffer("noise_mask", network.chunk_mask(every).flatten(1).contiguous())
        leave = network.torso.leave
        self.register_buffer("leave_weight", (frame.gain * leave.weight).T.contiguous())
        self.register_buffer("leave_bias", frame.gain * leave.bias)

    def forward(self, state: torch.Tensor, task: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        """As `Student.forward`: state [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max]."""
        mask = self.noise_mask[task]
        known = ((state - self.shift[task]) * self.factor[task]).clamp(-5.0, 5.0).flatten(1)
        noise = None if z is None else z * mask
        inputs = known if noise is None else torch.cat([known, noise], dim=1)
        hidden = inputs @ self.enter + self.table[task]
        for block in self.blocks:
            hidden = block(hidden)
        raw = torch.addmm(self.leave_bias, nn.functional.silu(self.norm(hidden)), self.leave_weight)
        if noise is not None:
            raw = raw + self.skip * noise
        return (raw * mask).clamp(-1.0, 1.0).reshape(-1, *self.sizes)
