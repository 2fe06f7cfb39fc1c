"""A residual multilayer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + Linear(SiLU(Linear(LayerNorm(x)))): pre-norm, stable at depth (Xiong et al. 2020, arXiv
    2002.04745).
    """

    def __init__(self, width: int) -> None:
        """Input and output have `width` features."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]"""
        return hidden + self.contract(nn.functional.silu(self.expand(self.norm(hidden))))

    def folded(self) -> FoldedBlock:
        """The same map with fewer operators, for export."""
        return FoldedBlock(self)


class FoldedBlock(nn.Module):
    """A residual block for inference, its weights as [inputs, outputs], which a single row reads faster."""

    expand: Tensor
    contract: Tensor
    expand_bias: Tensor
    contract_bias: Tensor

    def __init__(self, block: ResidualBlock) -> None:
        """Copies the weights."""
        super().__init__()
        self.norm = block.norm
        self.register_buffer("expand", block.expand.weight.detach().T.contiguous())
        self.register_buffer("contract", block.contract.weight.detach().T.contiguous())
        self.register_buffer("expand_bias", block.expand.bias.detach())
        self.register_buffer("contract_bias", block.contract.bias.detach())

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, width] -> [N, width]"""
        inner = torch.addmm(self.expand_bias, self.norm(hidden), self.expand)
        return hidden + torch.addmm(self.contract_bias, nn.functional.silu(inner), self.contract)


class ResidualMLP(nn.Module):
    """Linear in, `blocks` residual blocks, LayerNorm, SiLU, linear out.

    `enter` and `leave` are the input and the output layer; the latter starts at zero, so that a new network
    predicts 0.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        """[..., inputs] -> [..., outputs] through `blocks` blocks of `width`."""
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        hidden = self.enter(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        return self.leave(nn.functional.silu(self.norm(hidden)))
