"""The networks: encoders to one latent, dynamics and reward by experts, Q functions, policy prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mtrl.nn import (
    BatchedLinear,
    CategoricalValueHead,
    LayerNorm,
    PixelEncoder,
    RoutedExperts,
    RoutedExpertsConfig,
    Stack,
    TanhGaussian,
    TaskEmbedding,
    TaskEmbeddingConfig,
    TaskGates,
    TaskNormaliser,
    full_precision,
    masked_log_softmax,
    scatter_rows,
)
from mtrl.spaces import Layout

from .config import WorldModelConfig

GROUP = 8
"""Entries of the latent that one softmax of SimNorm normalises."""

Seen = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Bucket -> observations [K_b, B, ...] and their rows [K_b] among the K tasks of the call."""


class Step(NamedTuple):
    """One step of the model."""

    latent: torch.Tensor
    """Next latent [K, B, d]."""
    reward: torch.Tensor
    """Logits of the scaled reward [K, B, bins]."""
    termination: torch.Tensor
    """Logit of a terminal next state [K, B]."""


class SimNorm(nn.Module):
    """Softmax within groups of 8 entries: a sparse, bounded latent (Lavoie et al. 2022; TD-MPC2, eq. 5)."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., d], every group sums to 1. Inputs are standardised, so no maximum needs to be
        subtracted; a softmax over 8 entries takes nine times as long on a CPU.
        """
        powers = inputs.exp().unflatten(-1, (-1, GROUP))
        return (powers / powers.sum(-1, keepdim=True)).flatten(-2)


class WorldModel(nn.Module):
    """z = h(o, e), z' = d(z, a, e), r = R(z, a, e), Q(z, a, e) and pi(z, e) for the task embedding e
    (Hansen et al. 2024, arXiv 2310.16828, equation 2), with experts in d and R.

    Actions are coded as [A continuous | n one-hot]. All tensors are task-major [K, B, ...].
    """

    continuous: torch.Tensor
    legal: torch.Tensor
    discrete: torch.Tensor

    def __init__(
        self, layout: Layout, config: WorldModelConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        sizes = config.sizes
        self.config, self.layout = config, layout
        self.actions = layout.continuous_size + layout.discrete_size
        self.observer = TaskNormaliser(layout, config.normalisation.clip)
        embedding = TaskEmbeddingConfig("learned", sizes.embedding)
        self.embedding = TaskEmbedding(embedding, layout.task_count, generator=generator)
        self.state_encoder: Stack | None = None
        self.pixel_encoder: PixelEncoder | None = None
        self.pixel_latent: BatchedLinear | None = None
        if layout.state_size:
            widths = [sizes.encoder, sizes.latent]
            self.state_encoder = _normed(layout.state_size + sizes.embedding, widths, generator)
        if layout.pixels_shape is not None:
            self.pixel_encoder = PixelEncoder(config.pixels, layout.pixels_shape, generator)
            features = self.pixel_encoder.outputs + sizes.embedding
            self.pixel_latent = BatchedLinear((), features, sizes.latent, generator=generator)
        self.latent_norm = LayerNorm((), sizes.latent, affine=False)
        self.simnorm = SimNorm()
        inputs = sizes.latent + self.actions + sizes.embedding
        experts = config.experts.of(sizes)
        if config.experts.dense:
            heads = sizes.latent + config.bins + 1
            wide = dense_width(inputs, heads, experts)
            experts = replace(experts, routed=1, chosen=1, shared=0, width=wide, noise=0.0, balance="none")
        self.experts = RoutedExperts(experts, layout.task_count, inputs, generator)
        self.next_latent = BatchedLinear((), experts.width, sizes.latent, generator=generator)
        self.next_norm = LayerNorm((), sizes.latent, affine=False)
        # zero logits: reward and value begin at 0, whatever the task pays (TD-MPC2, appendix H)
        self.reward = BatchedLinear((), experts.width, config.bins, bound=0.0)
        self.termination = BatchedLinear((), experts.width, 1, bound=0.0)
        self.q_body = _normed(inputs, [sizes.hidden, sizes.hidden], generator, (sizes.q_functions,))
        self.q_out = BatchedLinear((sizes.q_functions,), sizes.hidden, config.bins, bound=0.0)
        self.pi_body = _normed(sizes.latent + sizes.embedding, [sizes.hidden, sizes.hidden], generator)
        heads = 2 * layout.continuous_size + layout.discrete_size
        self.pi_out = BatchedLinear((), sizes.hidden, heads, bound=1e-3, generator=generator)
        self.register_buffer("continuous", torch.as_tensor(layout.continuous_mask).float(), persistent=False)
        self.register_buffer("legal", torch.as_tensor(layout.legal_mask), persistent=False)
        self.number = CategoricalValueHead(config.bins, config.value_range, symmetric_log=True)
        kinds = torch.as_tensor(layout.discrete_tasks)
        self.register_buffer("discrete", kinds, persistent=False)
        # adapters that grow the experts will count their stages here
        self.register_buffer("growth_stage", torch.zeros((), dtype=torch.int64))

    def model_parameters(self) -> dict[str, nn.Parameter]:
        """Everything but the policy prior."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("pi_")}

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy prior."""
        return {name: p for name, p in self.named_parameters() if name.startswith("pi_")}

    def embed(self, task_index: torch.Tensor) -> torch.Tensor:
        """[K] -> [K, 1, e], of length 1."""
        found: torch.Tensor = self.embedding(task_index)
        return found

    def encode(self, seen: Seen, task_index: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """Standardised states and uint8 pixels -> latent [K, B, d]; a task that fills both has their mean."""
        count, total = len(task_index), None
        parts = torch.zeros(count, 1, 1, device=task_index.device)
        for name, (values, rows) in seen.items():
            around = embedded[rows].expand(-1, values.shape[1], -1)
            if name == "state":
                assert self.state_encoder is not None, "the layout has states"
                found = self.state_encoder(torch.cat([values, around], dim=-1))
            else:
                assert self.pixel_encoder is not None and self.pixel_latent is not None, "it has pixels"
                found = self.pixel_latent(torch.cat([self.pixel_encoder(values), around], dim=-1))
            found = scatter_rows(self.latent_norm(full_precision(found)), rows, count)
            total = found if total is None else total + found
            parts = parts.index_add(0, rows, torch.ones(len(rows), 1, 1, device=parts.device))
        assert total is not None, "a layout has a bucket"
        latent: torch.Tensor = self.simnorm(total if len(seen) == 1 else total / parts)
        return latent

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor, gates: TaskGates
    ) -> Step:
        """One step of dynamics, reward and termination."""
        hidden = self.experts(_joined(latent, action, embedded), gates)
        following = self.simnorm(self.next_norm(full_precision(self.next_latent(hidden))))
        return Step(following, self.reward(hidden), full_precision(self.termination(hidden)).squeeze(-1))

    def q_logits(self, latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """[n, K, B, bins]"""
        logits: torch.Tensor = self.q_out(self.q_body(self.q_inputs(latent, action, embedded)))
        return logits

    def q_inputs(self, latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """[n, K, B, d + A + n + e], the same for every member."""
        inputs = _joined(latent, action, embedded)
        return inputs.expand(self.config.sizes.q_functions, *inputs.shape)

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [..., bins] of rewards or Q functions -> numbers [...]."""
        return self.number.values(logits)

    def prior(
        self, latent: torch.Tensor, task_index: torch.Tensor, embedded: torch.Tensor
    ) -> tuple[TanhGaussian, torch.Tensor]:
        """A Gaussian and logits [K, B, n] of every row; a task uses the one that it acts by. `log_policy`
        takes the logits of discrete tasks.
        """
        inputs = torch.cat([latent, embedded.expand(*latent.shape[:-1], -1)], dim=-1)
        raw = self.pi_out(self.pi_body(inputs))
        mean, spread, logits = raw.split(
            [self.layout.continuous_size] * 2 + [self.layout.discrete_size], dim=-1
        )
        low, high = self.config.exploration.log_std_low, self.config.exploration.log_std_high
        log_std = low + 0.5 * (high - low) * (1.0 + torch.tanh(spread))
        gaussian = TanhGaussian(mean, log_std, self.continuous[task_index][:, None])
        return gaussian, logits

    def log_policy(self, logits: torch.Tensor, task_index: torch.Tensor) -> torch.Tensor:
        """Logits of discrete tasks [K] -> log-probabilities [K, B, n], -inf where not legal."""
        return masked_log_softmax(logits, self.legal[task_index][:, None])

    def coded(self, continuous: torch.Tensor, discrete: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Actions [K, ..., A], indices [K, ...] -> [K, ..., A + n]; `rows` [K], True for discrete tasks."""
        if not self.layout.discrete_size:
            return continuous
        one_hot = nn.functional.one_hot(discrete, self.layout.discrete_size).to(continuous.dtype)
        one_hot = one_hot * rows.view(-1, *[1] * (one_hot.dim() - 1)).to(continuous.dtype)
        return torch.cat([continuous, one_hot], dim=-1)


def discounts(layout_horizons: np.ndarray, fixed: float) -> np.ndarray:
    """[K]: clip((T/5 - 1) / (T/5), 0.95, 0.995) of the horizon T in decisions (TD-MPC2), or `fixed`."""
    if fixed > 0:
        return np.full(len(layout_horizons), fixed, dtype=np.float32)
    fifth = np.maximum(np.asarray(layout_horizons, dtype=np.float64) / 5.0, 1.0)
    return np.clip((fifth - 1.0) / fifth, 0.95, 0.995).astype(np.float32)


def dense_width(inputs: int, heads: int, experts: RoutedExpertsConfig) -> int:
    """Units w of one network with as many weights as the active experts: with n of these of width v,
    (depth - 1) w^2 + (inputs + heads) w = n (inputs v + (depth - 1) v^2) + heads v.
    """
    width, layers = experts.width, experts.depth - 1
    active = experts.chosen + experts.shared
    budget = active * (inputs * width + layers * width * width) + heads * width
    linear = inputs + heads
    if layers == 0:
        return budget // linear
    root = math.sqrt(linear**2 + 4.0 * layers * budget)
    return max(1, round((root - linear) / (2.0 * layers)))


def _joined(latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    return torch.cat([latent, action, embedded.expand(*latent.shape[:-1], -1)], dim=-1)


def _normed(
    inputs: int, widths: list[int], generator: torch.Generator | None, leading: tuple[int, ...] = ()
) -> Stack:
    return Stack(leading, inputs, widths, activation="silu", norm=True, affine=True, generator=generator)
