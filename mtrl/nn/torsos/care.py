"""CARE: the task's description chooses among encoders of the state."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import Stack
from .base import Torso


class CareTorso(Torso):
    """Sodhani et al. 2021 (arXiv 2102.06177).

    c = MLP(e_k); attention a = softmax(MLP(c) / temperature); encoding = sum_j a_j MLP_j(x); then
    `depth` layers of `width` over [encoding, c]. The paper's e_k is a language model's vector of the
    task's description: pass it with `embedding.kind=given`.
    """

    def _build(self, generator: torch.Generator | None) -> None:
        config, inputs = self.config, self.inputs
        care, lead = config.care, self.leading
        inner = [care.width] * care.depth

        def head(leading: tuple[int, ...], size: int, outputs: int) -> Stack:
            return Stack(
                leading,
                size,
                [*inner, outputs],
                activation=config.activation,
                activate_last=False,
                generator=generator,
            )

        self.context = head(lead, self.embedding.size, care.width)
        self.attention = head(lead, care.width, care.encoders)
        self.encoders = head((*lead, care.encoders), inputs, care.width)
        self.stack = self._hidden_stack(lead, 2 * care.width, generator)

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """The attention depends on the task alone."""
        care = self.config.care
        context = self.context(embedding)
        gates = torch.softmax(self.attention(context) / care.temperature, dim=-1)
        outputs = self.encoders(features.unsqueeze(1).expand(-1, care.encoders, -1, -1, -1))
        self.note("gates", gates.expand(*features.shape[:-1], -1))
        self.note("experts", outputs)
        mixed = torch.einsum("nkoe,nekbd->nkbd", gates.to(outputs.dtype), outputs)
        joined = torch.cat([mixed, context.expand(*mixed.shape[:-1], -1)], dim=-1)
        return self.stack(joined, self.note if self.recording else None)
