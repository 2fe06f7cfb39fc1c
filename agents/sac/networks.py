"""Actor and twin critics over task-major batches: one torso for all tasks, one head per task.

Weights carry a leading axis and go through batched products: [2, in, out] for the twins' torsos,
[K, in, out] for heads. Every sample passes its own task's head and no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mtrl.spaces import Layout, Moments

from .config import ExplorationConfig, NetworkConfig
from .losses import expected_value

Seen = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Bucket -> ([K_b, B, ...], rows [K_b] of the batch)."""


class BatchedLinear(nn.Module):
    """N linear maps side by side, [N, M, in] -> [N, M, out]."""

    def __init__(self, count: int, inputs: int, outputs: int, scale: float | None = None) -> None:
        """He-uniform weights, or uniform within `scale`; biases begin at 0."""
        super().__init__()
        bound = math.sqrt(6.0 / max(inputs, 1)) if scale is None else scale
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def forward(self, inputs: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Map n acts on `inputs[n]`; with `rows` [N'], map rows[n]."""
        if not len(inputs):
            return inputs.new_zeros(0, inputs.shape[1], self.weight.shape[2])
        if rows is None:
            return torch.baddbmm(self.bias, inputs, self.weight)
        return torch.baddbmm(self.bias[rows], inputs, self.weight[rows])


class Torso(nn.Module):
    """`count` perceptrons side by side: linear, LayerNorm, ReLU, repeated."""

    def __init__(self, count: int, inputs: int, config: NetworkConfig) -> None:
        """[count, M, inputs] -> [count, M, width]"""
        super().__init__()
        sizes = [inputs] + [config.width] * config.layers
        self.layers = nn.ModuleList(BatchedLinear(count, i, o) for i, o in pairwise(sizes))
        self.layer_norm = config.layer_norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """All perceptrons at once."""
        for layer in self.layers:
            hidden = layer(hidden)
            if self.layer_norm:
                hidden = F.layer_norm(hidden, hidden.shape[-1:])
            hidden = F.relu(hidden)
        return hidden


class PixelEncoder(nn.Module):
    """Picture stack to features: four 3 x 3 convolutions, linear, LayerNorm, tanh (DrQ, Yarats et al.
    2021).
    """

    def __init__(self, shape: tuple[int, int, int], features: int) -> None:
        """`shape` is (C, H, W)."""
        super().__init__()
        strides = (2, 2, 2, 1)
        channels = [shape[0], 32, 32, 32, 32]
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride, padding=1)
            for i, o, stride in zip(channels[:-1], channels[1:], strides, strict=True)
        )
        height, width = (math.ceil(side / 8) for side in shape[1:])
        self.leave = nn.Linear(32 * height * width, features)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] -> [N, features]"""
        hidden = pixels.float() / 255.0 - 0.5
        for layer in self.layers:
            hidden = F.relu(layer(hidden))
        hidden = self.leave(hidden.flatten(1))
        return F.layer_norm(hidden, hidden.shape[-1:]).tanh()


class Observer(nn.Module):
    """What a torso sees: standardised state, features of pixels, and the task."""

    mean: torch.Tensor
    """[K, D_max]"""
    scale: torch.Tensor
    """[K, D_max]"""
    embedding: torch.Tensor
    """[K, E]"""

    def __init__(self, layout: Layout, config: NetworkConfig, clip: float) -> None:
        """Statistics begin at mean 0 and scale 1."""
        super().__init__()
        count = layout.task_count
        self.clip = clip
        self.register_buffer("mean", torch.zeros(count, layout.state_size))
        self.register_buffer("scale", torch.ones(count, layout.state_size))
        self.learned = config.embedding == "learned"
        if self.learned:
            self.embedding = nn.Parameter(torch.randn(count, config.embedding_size))
        else:
            self.register_buffer("embedding", torch.eye(count), persistent=False)
        self.pixels: PixelEncoder | None = None
        self.pixel_features = 0
        if layout.pixels_shape is not None:
            self.pixels = PixelEncoder(layout.pixels_shape, config.pixel_features)
            self.pixel_features = config.pixel_features
        self.size = layout.state_size + self.pixel_features + self.embedding.shape[1]

    def set_moments(self, task_index: int, moments: Moments) -> None:
        """Takes over one task's statistics."""
        self.mean[task_index] = torch.from_numpy(moments.mean[task_index])
        self.scale[task_index] = torch.from_numpy(moments.scale[task_index])

    def standardise(self, states: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """States [K_b, ..., D] of tasks `task` [K_b] by each task's statistics, clipped."""
        shape = (len(task), *[1] * (states.ndim - 2), -1)
        centred = states - self.mean[task].view(shape)
        return centred.div_(self.scale[task].view(shape)).clamp_(-self.clip, self.clip)

    def forward(self, seen: Seen, task: torch.Tensor, width: int) -> torch.Tensor:
        """[K, B, size] for tasks `task` [K] and B = `width` samples of each, states standardised.

        Rows without a bucket hold zeros.
        """
        parts = []
        if "state" in seen:
            values, rows = seen["state"]
            parts.append(spread(values, rows, len(task)))
        elif self.mean.shape[1]:
            parts.append(self.mean.new_zeros(len(task), width, self.mean.shape[1]))
        if self.pixels is not None:
            if "pixels" in seen:
                values, rows = seen["pixels"]
                features = self.pixels(values.flatten(0, 1)).unflatten(0, values.shape[:2])
                parts.append(spread(features, rows, len(task)))
            else:
                parts.append(self.mean.new_zeros(len(task), width, self.pixel_features))
        embedding = F.normalize(self.embedding, dim=-1) if self.learned else self.embedding
        parts.append(embedding[task][:, None].expand(-1, width, -1))
        return torch.cat(parts, dim=-1)


def spread(values: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """[K_b, ...] -> [K, ...] with the values in `rows`, ascending, and zeros in the rows of other tasks."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, rows, values)


def picked(values: torch.Tensor, rows: torch.Tensor, dim: int) -> torch.Tensor:
    """The `rows`, ascending, along a dimension of K; no copy where that is all of them."""
    return values if len(rows) == values.shape[dim] else values.index_select(dim, rows)


@dataclass(frozen=True)
class Routing:
    """Where the tasks of a batch find their heads."""

    continuous: torch.Tensor
    """[K_c], rows of the batch whose tasks act by vectors."""
    discrete: torch.Tensor
    """[K_d], rows of the batch whose tasks act by index."""
    continuous_head: torch.Tensor | None
    """[K_c], heads of those rows; None for all heads in order."""
    discrete_head: torch.Tensor | None
    """[K_d]"""


class Router:
    """Which tasks act by vectors and which by index; heads are numbered within their kind."""

    def __init__(self, layout: Layout) -> None:
        """In task order."""
        discrete = layout.discrete_tasks
        self._discrete = torch.from_numpy(discrete.copy())
        order = np.where(discrete, np.cumsum(discrete), np.cumsum(~discrete)) - 1
        self._head = torch.from_numpy(order.astype(np.int64))
        self._every = torch.arange(len(discrete))
        self._all = replace(self._route(self._every), continuous_head=None, discrete_head=None)

    def __call__(self, task: torch.Tensor) -> Routing:
        """For a batch of tasks [K], repeated or not."""
        # the usual batch holds every task once: no weights are gathered then
        return self._all if torch.equal(task, self._every) else self._route(task)

    def _route(self, task: torch.Tensor) -> Routing:
        kind = self._discrete[task]
        continuous, discrete = (~kind).nonzero().squeeze(1), kind.nonzero().squeeze(1)
        return Routing(continuous, discrete, self._head[task[continuous]], self._head[task[discrete]])


class Actor(nn.Module):
    """tanh-Gaussian for continuous tasks, categorical for discrete ones."""

    legal: torch.Tensor
    """[K, actions], True where the index is an action of the task."""

    def __init__(
        self, layout: Layout, config: NetworkConfig, exploration: ExplorationConfig, clip: float
    ) -> None:
        """One torso, one head per task."""
        super().__init__()
        self.observer = Observer(layout, config, clip)
        self.torso = Torso(1, self.observer.size, config)
        discrete = int(layout.discrete_tasks.sum())
        self.route = Router(layout)
        self.gaussian = BatchedLinear(
            layout.task_count - discrete, config.width, 2 * layout.continuous_size, scale=1e-3
        )
        self.categorical = BatchedLinear(discrete, config.width, layout.discrete_size, scale=1e-3)
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.copy()), persistent=False)
        self._low, self._high = exploration.log_deviation_low, exploration.log_deviation_high

    def forward(
        self, seen: Seen, task: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means and log deviations [K_c, B, A] of the batch's continuous tasks, and log policies
        [K_d, B, actions] of its discrete ones, -inf for illegal actions; all float32.
        """
        observed = self.observer(seen, task, width)
        hidden = self.torso(observed.flatten(0, 1)[None])[0].unflatten(0, observed.shape[:2])
        way = self.route(task)
        raw = self.gaussian(picked(hidden, way.continuous, 0), way.continuous_head).float()
        mean, spread = raw.chunk(2, dim=-1)
        log_deviation = self._low + 0.5 * (self._high - self._low) * (1.0 + spread.tanh())
        logits = self.categorical(picked(hidden, way.discrete, 0), way.discrete_head).float()
        logits = logits.masked_fill(~self.legal[task[way.discrete]][:, None], -torch.inf)
        return mean, log_deviation, logits.log_softmax(-1)


class TwinCritic(nn.Module):
    """Two critics as one batched network.

    A continuous task's head values the given action; a discrete task's head values every action at
    once, and its torso sees zeros in place of an action.
    """

    support: torch.Tensor
    """[bins], the values of a categorical critic."""

    def __init__(self, layout: Layout, config: NetworkConfig, clip: float) -> None:
        """One pair of torsos, one pair of heads per task."""
        super().__init__()
        self.observer = Observer(layout, config, clip)
        self.torso = Torso(2, self.observer.size + layout.continuous_size, config)
        discrete = int(layout.discrete_tasks.sum())
        self.route = Router(layout)
        self.bins = config.bins if config.critic == "categorical" else 1
        self.actions = layout.discrete_size
        self._continuous, self._discrete = layout.task_count - discrete, discrete
        self.continuous_head = BatchedLinear(2 * self._continuous, config.width, self.bins, scale=1e-3)
        self.discrete_head = BatchedLinear(2 * discrete, config.width, self.actions * self.bins, scale=1e-3)
        support = torch.linspace(-config.value_range, config.value_range, config.bins)
        self.register_buffer("support", support, persistent=False)

    def forward(
        self, observed: torch.Tensor, task: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw outputs [2, K_c, B, bins] and [2, K_d, B, actions, bins]; one bin for a scalar critic.

        `observed` [K, B, size] comes from `observer`; `action` [K, B, A_max].
        """
        inputs = torch.cat([observed, action], dim=-1)
        hidden = self.torso(inputs.flatten(0, 1)[None].expand(2, -1, -1)).unflatten(1, inputs.shape[:2])
        way = self.route(task)
        chosen = self.continuous_head(
            picked(hidden, way.continuous, 1).flatten(0, 1), _of_twins(way.continuous_head, self._continuous)
        )
        every = self.discrete_head(
            picked(hidden, way.discrete, 1).flatten(0, 1), _of_twins(way.discrete_head, self._discrete)
        )
        every = every.view(2, len(way.discrete), inputs.shape[1], self.actions, self.bins)
        return chosen.view(2, len(way.continuous), inputs.shape[1], self.bins), every

    def values(self, raw: torch.Tensor) -> torch.Tensor:
        """[..., bins] -> [...], what the raw outputs are worth."""
        return raw[..., 0].float() if self.bins == 1 else expected_value(raw, self.support)


def _of_twins(heads: torch.Tensor | None, count: int) -> torch.Tensor | None:
    """Heads of the first critic, then those of the second, which follow the first's `count`."""
    return None if heads is None else torch.cat([heads, heads + count])
