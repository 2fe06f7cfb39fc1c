"""A weighting of task gradients and a torso, as parts for agents of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mtrl.gradients import Weighting, WeightingInputs
from mtrl.nn import BatchedLinear, Torso


@dataclass(frozen=True)
class SoftmaxConfig:
    """Settings of the weighting."""

    temperature: float = 1.0
    """Divides the losses, above 0: the smaller, the more the worst task counts."""


class Softmax(Weighting[SoftmaxConfig]):
    """Weights [K] that add up to K, larger for larger losses."""

    needs_gramian = False

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        """[K] float64, from the losses alone."""
        scaled = inputs.losses / self.config.temperature
        share = np.exp(scaled - scaled.max())
        weights: np.ndarray = self.tasks * share / share.sum()
        return weights


@dataclass(frozen=True)
class BiasConfig:
    """Settings of the torso."""

    scale: float = 0.1
    """Factor of the bias."""


class TaskBias(Torso):
    """A perceptron with a bias per task behind every layer."""

    config_class = BiasConfig

    def _build(self, generator: torch.Generator | None) -> None:
        width = self.config.width
        self.linears, self.norms = self._hidden_layers(
            lambda inputs: BatchedLinear(self.leading, inputs, width, generator=generator)
        )
        self.bias = BatchedLinear(self.leading, self.embedding.size, width, generator=generator)

    def transform(
        self, features: torch.Tensor, task_index: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """[N, K, B, inputs] -> [N, K, B, width]."""
        bias = self.settings.scale * self.bias(embedding)
        for linear in self.linears:
            features = (linear(features) + bias).relu()
        return features
