"""CARE: the task's description chooses among encoders of the state."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Torso


class CareTorso(Torso):
    """Sodhani et al. 2021 (arXiv 2102.06177).

    c = MLP(e_k); attention a = softmax(MLP(c) / temperature); encoding = sum_j a_j MLP_j(x); then
    `depth` layers of `width` over [encoding, c]. The paper's e_k is a language model's vector of the
    task's description: pass it with `embedding.kind=given`.
    """

    def _build(self, generator: torch.Generator | None) -> None:
        care, lead = self.config.care, self.leading
        inner = [care.width] * care.depth
        self.context = self._linear_stack(lead, self.embedding.size, [*inner, care.width], generator)
        self.attention = self._linear_stack(lead, care.width, [*inner, care.encoders], generator)
        self.encoders = self._linear_stack(
            (*lead, care.encoders), self.inputs, [*inner, care.width], generator
        )
        self.stack = self._hidden_stack(lead, 2 * care.width, generator)

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """The attention depends on the task alone."""
        care = self.config.care
        context = self.context(embedding)
        gates = torch.softmax(self.attention(context) / care.temperature, dim=-1)
        outputs = self.encoders(features.unsqueeze(1).expand(-1, care.encoders, -1, -1, -1))
        self.add_record("gates", gates.expand(*features.shape[:-1], -1))
        self.add_record("experts", outputs)
        mixed = torch.einsum("nkoe,nekbd->nkbd", gates.to(outputs.dtype), outputs)
        joined = torch.cat([mixed, context.expand(*mixed.shape[:-1], -1)], dim=-1)
        return self.stack(joined, self.add_record if self.recording else None)
