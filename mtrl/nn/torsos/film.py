"""FiLM: the task scales and shifts the features of every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import BatchedLinear, activation_named
from .base import Torso


class FilmTorso(Torso):
    """Perez et al. 2018 (arXiv 1709.07871): h = (1 + gamma_k) * act(W h) + beta_k in every layer.

    gamma and beta are linear in the task embedding and start near 0, so that a fresh torso is a plain
    MLP that all tasks share.
    """

    def _build(self, generator: torch.Generator | None) -> None:
        config, lead, width = self.config, self.leading, self.config.width
        self.activate = activation_named(config.activation)
        self.linears, self.norms = self._hidden_layers(
            lambda inputs: BatchedLinear(lead, inputs, width, generator=generator)
        )
        self.modulation_width = 1 if config.film.scalar else width
        self.modulate = BatchedLinear(
            lead,
            self.embedding.size,
            2 * config.depth * self.modulation_width,
            bound=1e-3,
            generator=generator,
        )

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """The features alone enter; the embedding sets gamma and beta."""
        parts = self.modulate(embedding).unflatten(-1, (self.config.depth, 2, self.modulation_width))
        hidden = features
        for depth, linear in enumerate(self.linears):
            hidden = linear(hidden)
            if len(self.norms):
                hidden = self.norms[depth](hidden)
            gamma, beta = parts[..., depth, 0, :], parts[..., depth, 1, :]
            hidden = (1.0 + gamma) * self.activate(hidden) + beta
            self.add_record("hidden", hidden)
        return hidden
