"""PaCo: every task's network is a mixture of the same parameter sets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import ComposedLinear, TaskTable, activation_named, fill_uniform, mixture_bound
from .base import Torso


class PaCoTorso(Torso):
    """Sun et al. 2022 (arXiv 2210.11653): theta_k = Phi w_k in every layer, the output layer included.

    w_k is trained by task k alone, so that a task whose loss diverges can be reset
    (`reset_tasks`). It has no softmax and starts as U(+-sqrt(3 / J)), which keeps the variance of
    He-initialised sets.
    """

    natural_output = "composed"

    def _build(self, generator: torch.Generator | None) -> None:
        config, sets, lead = self.config, self.config.paco.sets, self.leading
        self.activate = activation_named(config.activation)
        self.weights = TaskTable(lead, self.tasks, sets, bound=mixture_bound(sets), generator=generator)
        self.linears, self.norms = self._hidden_layers(
            lambda inputs: ComposedLinear((*lead, sets), inputs, config.width, generator=generator)
        )

    def mixture(self, task_index: Tensor) -> Tensor:
        """[N, K, 1, J], w_k of each task."""
        return self.weights(task_index)

    def diverged(self, losses: Tensor) -> Tensor:
        """losses [K] -> [K], True above `paco.extreme_loss` and where the loss is no number."""
        return ~(losses.detach() <= self.config.paco.extreme_loss)

    @torch.no_grad()
    def reset_tasks(
        self, losses: Tensor, task_index: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """w_k of a diverged task becomes a random convex mixture of the other tasks' w: uniform numbers
        divided by their sum, as in the authors' program. Where every task diverged, each is drawn again.
        """
        diverged = self.diverged(losses)
        table = self.weights.weight
        reset = torch.zeros(self.tasks, dtype=torch.bool, device=table.device)
        reset[task_index[diverged]] = True
        count, others = int(reset.sum()), int((~reset).sum())
        if count and others:
            device = None if generator is None else generator.device
            shares = torch.rand(count, others, generator=generator, device=device).to(table)
            table[:, reset] = (shares / shares.sum(dim=-1, keepdim=True)) @ table[:, ~reset]
        elif count:
            fill_uniform(table, mixture_bound(self.config.paco.sets), generator)
        return diverged

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """The task embedding is not read."""
        mixture = self.mixture(task_index)
        hidden = features
        for depth, linear in enumerate(self.linears):
            hidden = linear(hidden, mixture)
            if len(self.norms):
                hidden = self.norms[depth](hidden)
            hidden = self.activate(hidden)
            self.add_record("hidden", hidden)
        return hidden
