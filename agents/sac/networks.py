"""Actor and twin critics over task-major batches: an encoder, one torso for all tasks, outputs per task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.data import Bucket
from mtrl.nn import (
    CategoricalValueHead,
    FlatParameters,
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
from mtrl.nn.torsos.router import Router as ExpertRouter
from mtrl.reducer import Reducer
from mtrl.spaces import Layout

from .config import ExplorationConfig, NetworkConfig, SACConfig

Observation = Mapping[str, Bucket]
"""Bucket -> [K_b, B, ...] and its rows of the batch; states standardised."""
ByKind = tuple[Tensor | None, Tensor | None]
"""What belongs to the continuous and to the discrete tasks of a batch; None for a kind that it lacks."""
Policies = tuple[TanhGaussian | None, Tensor | None]
"""Likewise: actions [K_c, B, A_max], and log-probabilities [K_d, B, actions], -inf for illegal ones."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class BatchTasks:
    """The tasks of a batch, and which rows are of continuous and which of discrete tasks."""

    task: Tensor
    """[K], task indices."""
    continuous: Tensor
    """[K_c], ascending rows of the batch."""
    discrete: Tensor
    """[K_d], ascending rows of the batch."""
    continuous_task: Tensor
    """[K_c], the tasks of those rows."""
    discrete_task: Tensor
    """[K_d]"""
    mask: Tensor
    """[K_c, 1, A_max], 1 where the task has the action dimension."""

    @staticmethod
    def of(task: Tensor, layout: Layout) -> BatchTasks:
        """For tasks [K] on the CPU, repeated or not."""
        kind = torch.tensor(layout.discrete_tasks)[task]
        continuous, discrete = (~kind).nonzero().squeeze(1), kind.nonzero().squeeze(1)
        mask = torch.tensor(layout.continuous_mask, dtype=torch.float32)[task[continuous]][:, None]
        return BatchTasks(task, continuous, discrete, task[continuous], task[discrete], mask)

    @property
    def count(self) -> int:
        """K"""
        return self.task.shape[0]

    @property
    def has_continuous(self) -> bool:
        """Whether the batch holds a continuous task."""
        return self.continuous.shape[0] > 0

    @property
    def has_discrete(self) -> bool:
        """Whether the batch holds a discrete task."""
        return self.discrete.shape[0] > 0

    def merged(self, continuous: Tensor | None, discrete: Tensor | None) -> Tensor:
        """[K_c, ...] and [K_d, ...] -> [K, ...], each row from its kind; None where K_c or K_d is 0."""
        if continuous is None or discrete is None:
            one_kind = continuous if discrete is None else discrete
            assert one_kind is not None, "a batch holds at least one task"
            return one_kind
        merged = continuous.new_zeros(self.count, *continuous.shape[1:])
        return merged.index_copy(0, self.continuous, continuous).index_copy(0, self.discrete, discrete)

    def for_row(self, row: int) -> BatchTasks:
        """One row of the batch."""
        task, first = self.task[row : row + 1], torch.zeros_like(self.task[:1])
        here = self.continuous == row
        continuous = (first, first[:0], task, task[:0])
        discrete = (first[:0], first, task[:0], task)
        return BatchTasks(task, *(continuous if bool(here.any()) else discrete), self.mask[here])

    def to(self, device: torch.device) -> BatchTasks:
        """The same on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


def _served(layout: Layout) -> dict[str, list[int]]:
    """Output -> the tasks that have it; an output that no task has is left out."""
    kinds = {"continuous": ~layout.discrete_tasks, "discrete": layout.discrete_tasks}
    return {name: np.flatnonzero(tasks).tolist() for name, tasks in kinds.items() if tasks.any()}


def _read(network: TaskNetwork, hidden: Tensor, batch_tasks: BatchTasks) -> ByKind:
    """The outputs for hidden features [..., K, B, width], each for the rows of its kind."""
    continuous, discrete = None, None
    if batch_tasks.has_continuous:
        rows = select_rows(hidden, batch_tasks.continuous, -3)
        continuous = network.read("continuous", rows, batch_tasks.continuous_task)
    if batch_tasks.has_discrete:
        rows = select_rows(hidden, batch_tasks.discrete, -3)
        discrete = network.read("discrete", rows, batch_tasks.discrete_task)
    return continuous, discrete


class Actor(nn.Module):
    """tanh-Gaussian for continuous tasks, categorical for discrete ones."""

    legal: Tensor
    """[T, actions], True where the index is an action of the task."""

    def __init__(
        self, layout: Layout, config: NetworkConfig, exploration: ExplorationConfig, clip: float
    ) -> None:
        """One torso; outputs of each kind that some task has. `observer` encodes and standardises
        observations.
        """
        super().__init__()
        self.observer = ObservationEncoder(layout, config.pixels, clip)
        sizes = {"continuous": 2 * layout.continuous_size, "discrete": layout.discrete_size}
        served = _served(layout)
        outputs = {name: sizes[name] for name in served}
        self.network = TaskNetwork(
            config.torso, self.observer.size, outputs, layout.task_count, served=served
        )
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.copy()), persistent=False)
        low, high = exploration.log_std_low, exploration.log_std_high
        self._middle, self.reach = 0.5 * (low + high), 0.5 * (high - low)

    def gaussian(self, raw: Tensor, batch_tasks: BatchTasks) -> tuple[TanhGaussian, Tensor]:
        """The policy [K_c, B, A_max] of raw outputs [K_c, B, 2 A_max], and the tanh that bounds its log std
        (`reach` times it, from the middle of the bounds).
        """
        mean, spread = full_precision(raw).chunk(2, dim=-1)
        bounded = spread.tanh()
        return TanhGaussian(mean, bounded * self.reach + self._middle, batch_tasks.mask), bounded

    def log_policy(self, logits: Tensor, batch_tasks: BatchTasks) -> Tensor:
        """Log-probabilities [K_d, B, actions] of raw outputs, -inf for illegal actions; float32."""
        return masked_log_softmax(logits, self.legal[batch_tasks.discrete_task][:, None])

    def forward(self, observation: Observation, batch_tasks: BatchTasks, samples: int) -> Policies:
        """The policies in B = `samples` observations of each task."""
        features = self.observer(observation, batch_tasks.count, samples)
        outputs = _read(self.network, self.network.torso(features, batch_tasks.task), batch_tasks)
        return self.policies(outputs, batch_tasks)

    def policies(self, outputs: ByKind, batch_tasks: BatchTasks) -> Policies:
        """The policies of raw outputs [K_c, B, 2 A_max] and [K_d, B, actions]."""
        continuous, discrete = outputs
        gaussian = None if continuous is None else self.gaussian(continuous, batch_tasks)[0]
        return gaussian, None if discrete is None else self.log_policy(discrete, batch_tasks)


class TwinCritic(nn.Module):
    """Two critics as one batched network.

    The output for continuous tasks values the given action; that for discrete tasks values every action
    at once, and the torso reads zeros instead of an action.
    """

    def __init__(self, layout: Layout, config: SACConfig) -> None:
        """One pair of torsos; outputs of each kind that some task has."""
        super().__init__()
        network = config.network
        self.observer = ObservationEncoder(layout, network.pixels, config.normalisation.clip)
        self.head: ValueHead = ScalarValueHead(config.value_clip)
        if network.critic == "categorical":
            self.head = CategoricalValueHead(network.bins, network.value_range)
        self.actions = layout.discrete_size
        torso = network.torso
        if network.critic_width:
            torso = replace(torso, width=network.critic_width)
        sizes = {"continuous": self.head.outputs, "discrete": self.actions * self.head.outputs}
        served = _served(layout)
        self.network = TaskNetwork(
            torso,
            self.observer.size + layout.continuous_size,
            {name: sizes[name] for name in served},
            layout.task_count,
            members=2,
            served=served,
        )

    def forward(self, features: Tensor, batch_tasks: BatchTasks, action: Tensor | None) -> ByKind:
        """Raw values [2, K_c, B, bins] of `action` [K_c, B, A_max], and [2, K_d, B, actions, bins] of every
        action; `features` [K, B, size] come from `observer`.
        """
        hidden = self.network.torso(self.inputs(features, batch_tasks, action), batch_tasks.task)
        q_taken, q_all = _read(self.network, hidden, batch_tasks)
        return q_taken, None if q_all is None else self.by_action(q_all)

    def by_action(self, raw: Tensor) -> Tensor:
        """[..., actions * bins] -> [..., actions, bins]"""
        return raw.unflatten(-1, (self.actions, self.head.outputs))

    def inputs(
        self, features: Tensor, batch_tasks: BatchTasks, action: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[K, B, size] and [K, B, A_max], which the torso reads side by side."""
        if action is None:
            width = self.network.torso.inputs - features.shape[-1]
            return features, features.new_zeros(*features.shape[:-1], width)
        return features, scatter_rows(action, batch_tasks.continuous, batch_tasks.count).to(features.dtype)


class MixedPrecisionNetworks:
    """Actor, critics and targets as the losses compute with them.

    In fp32 they are the networks themselves. In bf16 they are copies whose weights are rounded before every
    update (mixed precision with master weights, Micikevicius et al. 2018, section 3.1): one rounding
    per network, where automatic casting would round every weight and activation.
    """

    def __init__(self, actor: Actor, critic: TwinCritic, target: TwinCritic, bf16: bool) -> None:
        """Makes each network's weights one vector; `bf16` makes copies."""
        networks = {"actor": actor, "critic": critic, "target": target}
        self.weights = {name: FlatParameters(network) for name, network in networks.items()}
        """What is optimised, averaged and saved."""
        self.used = self.weights
        """What the losses compute with."""
        self.actor, self.critic, self.target = actor, critic, target
        self._buffers = list(zip(target.buffers(), critic.buffers(), strict=True))
        if bf16:
            self.actor, self.critic, self.target = _bf16(actor), _bf16(critic), _bf16(target)
            copies = [FlatParameters(network) for network in (self.actor, self.critic, self.target)]
            self.used = dict(zip(self.weights, copies, strict=True))

    def sync(self) -> None:
        """Copies the present weights into the networks that the losses use."""
        if self.used is not self.weights:
            for name, copied in self.used.items():
                copied.sync(self.weights[name])

    @torch.no_grad()
    def average(self, rate: float) -> None:
        """target <- (1 - rate) target + rate critic, buffers copied."""
        self.weights["target"].sync(self.weights["critic"], rate)
        for averaged, source in self._buffers:
            averaged.copy_(source)

    def update_balance(self, reducer: Reducer) -> None:
        """Moves the experts' selection biases, once per update and by the loads of all ranks."""
        torsos = [network.network.torso for network in (self.actor, self.critic)]
        if reducer.size > 1:
            modules = [module for torso in torsos for module in torso.modules()]
            loads = {
                str(number): module.pending
                for number, module in enumerate(modules)
                if isinstance(module, ExpertRouter) and module.balanced
            }
            if loads:
                like = {name: (load.shape, load.dtype) for name, load in loads.items()}
                for name, load in reducer.sums(lambda: loads, like).items():
                    loads[name].copy_(load)
        for torso in torsos:
            torso.update_balance()


def _bf16(network: Network) -> Network:
    """A copy with weights in bf16; buffers, such as statistics and selection biases, are shared."""
    copied = copy.deepcopy(network, {id(buffer): buffer for buffer in network.buffers()})
    for parameter in copied.parameters():
        parameter.data = parameter.data.bfloat16()
    return copied
