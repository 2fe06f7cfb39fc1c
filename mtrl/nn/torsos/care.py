"""CARE: the task's description chooses among encoders of the state."""

from __future__ import annotations

import torch

from ..stack import Stack
from .base import Torso
from .config import TorsoConfig


class CareTorso(Torso):
    """Sodhani et al. 2021 (arXiv 2102.06177).

    c = MLP(e_k); attention a = softmax(MLP(c) / temperature); encoding = sum_j a_j MLP_j(x); then
    `depth` layers of `width` over [encoding, c]. The paper's e_k is a language model's vector of the
    task's description: pass it with `embedding.kind=given`.
    """

    def __init__(
        self,
        config: TorsoConfig,
        inputs: int,
        tasks: int,
        members: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """See Torso."""
        super().__init__(config, inputs, tasks, members, generator)
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
        self.stack = Stack(
            lead,
            2 * care.width,
            [config.width] * config.depth,
            activation=config.activation,
            norm=config.layer_norm,
            affine=config.norm_affine,
            generator=generator,
        )

    @property
    def width(self) -> int:
        """Length of the output."""
        return self.config.width

    def transform(
        self, features: torch.Tensor, task_index: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """The attention depends on the task alone."""
        care = self.config.care
        context = self.context(embedding)
        gates = torch.softmax(self.attention(context) / care.temperature, dim=-1)
        outputs = self.encoders(features.unsqueeze(1).expand(-1, care.encoders, -1, -1, -1))
        self.note("gates", gates.expand(*features.shape[:-1], -1))
        self.note("experts", outputs)
        mixed = torch.einsum("nkoe,nekbd->nkbd", gates.to(outputs.dtype), outputs)
        joined = torch.cat([mixed, context.expand(*mixed.shape[:-1], -1)], dim=-1)
        return self.stack(joined, self.note)
