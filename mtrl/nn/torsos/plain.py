"""Torsos that treat all tasks alike: a multilayer perceptron and BRC's residual network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import BatchedLinear, LayerNorm, activation_named
from .base import Torso


class MLPTorso(Torso):
    """`depth` hidden layers."""

    appends_task = True

    def _build(self, generator: torch.Generator | None) -> None:
        self.stack = self._hidden_stack(self.leading, self.entry, generator)

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """Every hidden layer is shared by all tasks."""
        return self.stack(features, self.add_record if self.recording else None)


class MultiHeadTorso(MLPTorso):
    """The same; with an output layer per task, the multi-head network of MTMHSAC (Yu et al. 2020, arXiv
    1910.10897; Meta-World+, arXiv 2505.11289).
    """

    natural_output = "task"


class ResidualTorso(Torso):
    """BroNet (Nauman et al. 2024, arXiv 2405.16158), the critic of BRC (arXiv 2505.23150):
    Linear, LayerNorm, activation; then blocks h + LN(W LN-activation(W h)).

    Its norms are part of the architecture: `layer_norm` is not read.
    """

    natural_output = "task"
    appends_task = True

    def _build(self, generator: torch.Generator | None) -> None:
        config = self.config
        width, lead, affine = config.width, self.leading, config.norm_affine
        self.activate = activation_named(config.activation)
        self.enter = BatchedLinear(lead, self.entry, width, generator=generator)
        self.enter_norm = LayerNorm(lead, width, affine=affine)
        self.expand, self.expand_norm = nn.ModuleList(), nn.ModuleList()
        self.contract, self.contract_norm = nn.ModuleList(), nn.ModuleList()
        for _ in range(config.depth):
            self.expand.append(BatchedLinear(lead, width, width, generator=generator))
            self.expand_norm.append(LayerNorm(lead, width, affine=affine))
            self.contract.append(BatchedLinear(lead, width, width, generator=generator))
            self.contract_norm.append(LayerNorm(lead, width, affine=affine))

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """Every block is shared by all tasks."""
        hidden = self.activate(self.enter_norm(self.enter(features)))
        self.add_record("hidden", hidden)
        blocks = zip(self.expand, self.expand_norm, self.contract, self.contract_norm, strict=True)
        for expand, expand_norm, contract, contract_norm in blocks:
            inner = self.activate(expand_norm(expand(hidden)))
            self.add_record("hidden", inner)
            hidden = hidden + contract_norm(contract(inner))
        return hidden
