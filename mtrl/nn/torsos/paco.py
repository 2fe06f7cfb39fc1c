"""PaCo: every task's network is a mixture of the same parameter sets."""

from __future__ import annotations

import torch
from torch import nn

from ..layers import ComposedLinear, LayerNorm, TaskTable, mixture_bound
from ..stack import activation_named
from .base import Torso
from .config import TorsoConfig


class PaCoTorso(Torso):
    """Sun et al. 2022 (arXiv 2210.11653): theta_k = Phi w_k in every layer, the output layer included.

    w_k has no softmax and starts as U(+-sqrt(3 / J)), which keeps the variance of He-initialised sets.
    """

    def __init__(
        self,
        config: TorsoConfig,
        inputs: int,
        tasks: int,
        members: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """See Torso; the features alone enter, the task speaks through w_k."""
        super().__init__(config, inputs, tasks, members, generator)
        sets, lead = config.paco.sets, self.leading
        self.activate = activation_named(config.activation)
        self.weights = TaskTable(lead, tasks, sets, bound=mixture_bound(sets), generator=generator)
        self.linears = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in range(config.depth):
            self.linears.append(ComposedLinear(lead, sets, inputs, config.width, generator=generator))
            if config.layer_norm:
                self.norms.append(LayerNorm(lead, config.width, affine=config.norm_affine))
            inputs = config.width

    @property
    def width(self) -> int:
        """Length of the output."""
        return self.config.width

    def mixture(self, task_index: torch.Tensor) -> torch.Tensor:
        """[N, K, 1, J], w_k of each task."""
        return self.weights(task_index)

    def transform(
        self, features: torch.Tensor, task_index: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """The task embedding is not read."""
        mixture = self.mixture(task_index)
        hidden = features
        for depth, linear in enumerate(self.linears):
            hidden = linear(hidden, mixture)
            if len(self.norms):
                hidden = self.norms[depth](hidden)
            hidden = self.activate(hidden)
            self.note("hidden", hidden)
        return hidden
