"""Actor and twin critics over task-major batches: an observer, one torso for all tasks, outputs per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mtrl.data import Bucket
from mtrl.nn import (
    CategoricalValueHead,
    ObservationEncoder,
    ScalarValueHead,
    TanhGaussian,
    TaskNetwork,
    ValueHead,
    full_precision,
    masked_log_softmax,
    scatter_rows,
    select_rows,
)
from mtrl.spaces import Layout

from .config import ExplorationConfig, NetworkConfig

Observation = Mapping[str, Bucket]
"""Bucket -> [K_b, B, ...] and its rows of the batch."""


@dataclass(frozen=True)
class Routing:
    """The tasks of a batch, and which of them act how."""

    task: torch.Tensor
    """[K], task indices."""
    continuous: torch.Tensor
    """[K_c], rows of the batch whose tasks act by vectors."""
    discrete: torch.Tensor
    """[K_d], rows of the batch whose tasks act by index."""
    continuous_task: torch.Tensor
    """[K_c], the tasks in those rows."""
    discrete_task: torch.Tensor
    """[K_d]"""
    mask: torch.Tensor
    """[K_c, 1, A_max], 1 where the task has the action dimension."""

    @property
    def count(self) -> int:
        """K"""
        return self.task.shape[0]

    @property
    def acts_by_vector(self) -> bool:
        """Whether K_c is above 0."""
        return self.continuous.shape[0] > 0

    @property
    def acts_by_index(self) -> bool:
        """Whether K_d is above 0."""
        return self.discrete.shape[0] > 0

    def merged(self, continuous: torch.Tensor | None, discrete: torch.Tensor | None) -> torch.Tensor:
        """[K_c, ...] and [K_d, ...] -> [K, ...], every row from its own kind; None where K_c or K_d is 0."""
        if continuous is None or discrete is None:
            whole = continuous if discrete is None else discrete
            assert whole is not None, "a batch has tasks"
            return whole
        whole = continuous.new_zeros(self.count, *continuous.shape[1:])
        return whole.index_copy(0, self.continuous, continuous).index_copy(0, self.discrete, discrete)


class Router:
    """Which tasks act by vectors and which by index."""

    def __init__(self, layout: Layout) -> None:
        """In task order."""
        self._discrete = torch.from_numpy(layout.discrete_tasks.copy())
        self._mask = torch.from_numpy(layout.continuous_mask.astype(np.float32))

    def __call__(self, task: torch.Tensor) -> Routing:
        """For a batch of tasks [K] on the processor, repeated or not."""
        kind = self._discrete[task]
        continuous, discrete = (~kind).nonzero().squeeze(1), kind.nonzero().squeeze(1)
        mask = self._mask[task[continuous]][:, None]
        return Routing(task, continuous, discrete, task[continuous], task[discrete], mask)


def moved(way: Routing, device: torch.device) -> Routing:
    """The same on another device."""
    if way.task.device == device:
        return way
    return replace(way, **{name: value.to(device) for name, value in vars(way).items()})


def _served(layout: Layout) -> dict[str, list[int]]:
    """Output -> the tasks that have it; an output that no task has is left out."""
    kinds = {"continuous": ~layout.discrete_tasks, "discrete": layout.discrete_tasks}
    return {name: np.flatnonzero(tasks).tolist() for name, tasks in kinds.items() if tasks.any()}


class Actor(nn.Module):
    """tanh-Gaussian for continuous tasks, categorical for discrete ones."""

    legal: torch.Tensor
    """[K, actions], True where the index is an action of the task."""

    def __init__(
        self, layout: Layout, config: NetworkConfig, exploration: ExplorationConfig, clip: float
    ) -> None:
        """One torso; outputs of each kind that some task has."""
        super().__init__()
        self.observer = ObservationEncoder(layout, config.pixels, clip)
        self.route = Router(layout)
        sizes = {"continuous": 2 * layout.continuous_size, "discrete": layout.discrete_size}
        served = _served(layout)
        self.network = TaskNetwork(
            config.torso,
            self.observer.size,
            {name: sizes[name] for name in served},
            layout.task_count,
            served=served,
        )
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.copy()), persistent=False)
        low, high = exploration.log_deviation_low, exploration.log_deviation_high
        self._middle, self.reach = 0.5 * (low + high), 0.5 * (high - low)

    def log_std(self, squeezed: torch.Tensor) -> torch.Tensor:
        """What tanh of a raw output stands for, between the two bounds; `reach` is its slope."""
        return squeezed * self.reach + self._middle

    def log_policy(self, logits: torch.Tensor, way: Routing) -> torch.Tensor:
        """[K_d, B, actions], what raw outputs stand for: -inf for illegal actions; float32."""
        return masked_log_softmax(logits, self.legal[way.discrete_task][:, None])

    def forward(
        self, observation: Observation, way: Routing, width: int
    ) -> tuple[TanhGaussian | None, torch.Tensor | None]:
        """The Gaussian [K_c, B, A] of the batch's continuous tasks, and log policies
        [K_d, B, actions] of its discrete ones, -inf for illegal actions; float32. None for a kind that no
        task of the batch has.
        """
        observed = self.observer(observation, way.count, width)
        hidden = self.network.torso(observed, way.task)
        gaussian, log_policy = None, None
        if way.acts_by_vector:
            rows = select_rows(hidden, way.continuous, -3)
            raw = full_precision(self.network.read("continuous", rows, way.continuous_task))
            mean, spread = raw.chunk(2, dim=-1)
            gaussian = TanhGaussian(mean, self.log_std(spread.tanh()), way.mask)
        if way.acts_by_index:
            rows = select_rows(hidden, way.discrete, -3)
            log_policy = self.log_policy(self.network.read("discrete", rows, way.discrete_task), way)
        return gaussian, log_policy


class TwinCritic(nn.Module):
    """Two critics as one batched network.

    The output for continuous tasks values the given action; that for discrete tasks values every action
    at once, and the torso sees zeros in place of an action.
    """

    def __init__(self, layout: Layout, config: NetworkConfig, clip: float, value_clip: float) -> None:
        """One pair of torsos; outputs of each kind that some task has."""
        super().__init__()
        self.observer = ObservationEncoder(layout, config.pixels, clip)
        self.head: ValueHead = ScalarValueHead(value_clip)
        if config.critic == "categorical":
            self.head = CategoricalValueHead(config.bins, config.value_range)
        bins = self.head.outputs
        self.actions = layout.discrete_size
        torso = config.torso
        if config.critic_width:
            torso = replace(torso, width=config.critic_width)
        sizes = {"continuous": bins, "discrete": self.actions * bins}
        served = _served(layout)
        self.network = TaskNetwork(
            torso,
            self.observer.size + layout.continuous_size,
            {name: sizes[name] for name in served},
            layout.task_count,
            members=2,
            served=served,
        )

    def forward(
        self, observed: torch.Tensor, way: Routing, action: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Raw outputs [2, K_c, B, bins] and [2, K_d, B, actions, bins]; one bin for a scalar critic; None
        for a kind that no task of the batch has.

        `observed` [K, B, size] comes from `observer`; `action` [K_c, B, A_max].
        """
        hidden = self.network.torso(self.inputs(observed, way, action), way.task)
        chosen, every = None, None
        if way.acts_by_vector:
            rows = select_rows(hidden, way.continuous, -3)
            chosen = self.network.read("continuous", rows, way.continuous_task)
        if way.acts_by_index:
            rows = select_rows(hidden, way.discrete, -3)
            every = self.network.read("discrete", rows, way.discrete_task)
            every = every.unflatten(-1, (self.actions, self.head.outputs))
        return chosen, every

    def inputs(
        self, observed: torch.Tensor, way: Routing, action: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[K, B, size] and [K, B, A_max], what the torso sees side by side."""
        if action is None:
            beside = self.network.torso.inputs - observed.shape[-1]
            return observed, observed.new_zeros(*observed.shape[:-1], beside)
        return observed, scatter_rows(action, way.continuous, way.count).to(observed.dtype)
