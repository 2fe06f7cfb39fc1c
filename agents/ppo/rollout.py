"""What was collected, as columns of consecutive decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.data import Bucket
from mtrl.rollout import EpisodeGroup, Fragment
from mtrl.spaces import Layout
from mtrl.tasks import Task

from ..grpo.config import ReturnConfig
from ..grpo.returns import counts_success, episode_rewards, reward_unit
from ..grpo.table import TaskSteps
from .config import PPOConfig
from .critic import TaskCritic
from .losses import generalised_advantages

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Columns:
    """T decisions in each of N columns of one task."""

    task: int
    seen: Mapping[str, Array]
    """Bucket -> [T, N, ...], padded."""
    following: Mapping[str, Array]
    """Bucket -> [T, N, ...], the true successors."""
    reward: Array
    """[T, N]"""
    final: Array
    """[T, N], whether no value follows."""
    ended: Array
    """[T, N], whether an episode ends."""
    time: Array
    """[T, N], share of the horizon that is over; 0 in a stream."""
    before: Array
    """[T, N], whether the decision before is in the same episode and column."""
    index: Array
    """[T, N]"""
    extras: Mapping[str, Array]
    """[T, N, ...]"""

    @staticmethod
    def of_fragment(fragment: Fragment, task: Task) -> Columns:
        """A fragment of a stream: rewards in units of the score range or of the horizon."""
        ended = fragment.terminated | fragment.truncated
        return Columns(
            task=fragment.task_index,
            seen={bucket: rows[:-1] for bucket, rows in fragment.observations.items()},
            following=fragment.next_observations(),
            reward=fragment.reward.astype(np.float64) / reward_unit(task),
            final=fragment.terminated,
            ended=ended,
            time=np.zeros(ended.shape, np.float32),
            before=np.concatenate([np.zeros_like(ended[:1]), ~ended[:-1]]),
            index=fragment.discrete,
            extras=fragment.extras,
        )

    @staticmethod
    def of_group(group: EpisodeGroup, task: Task, layout: Layout, config: ReturnConfig) -> Columns:
        """The episodes of a group, one after another in one column; a success is final."""
        count, episodes = int(group.offsets[-1]), len(group)
        rows = np.arange(count) + np.repeat(np.arange(episodes), np.diff(group.offsets))
        padded = {
            bucket: layout.pad_state(values) if bucket == "state" else values
            for bucket, values in group.observations.items()
        }
        ended = np.isin(np.arange(count), group.offsets[1:] - 1)
        final = group.terminated | (group.success & counts_success(task, config))
        time = np.arange(count) - np.repeat(group.offsets[:-1], np.diff(group.offsets))
        return Columns(
            task=group.task_index,
            seen={bucket: values[rows][:, None] for bucket, values in padded.items()},
            following={bucket: values[rows + 1][:, None] for bucket, values in padded.items()},
            reward=np.concatenate(episode_rewards(group, task, config))[:, None],
            final=final[:, None],
            ended=ended[:, None],
            time=(time / task.horizon_decisions).astype(np.float32)[:, None],
            before=(time > 0)[:, None],
            index=group.discrete[:, None],
            extras={name: values[:, None] for name, values in group.extras.items()},
        )

    @property
    def steps(self) -> int:
        """T N"""
        return int(self.reward.size)

    def state(self) -> dict[str, Any]:
        """As arrays."""
        return dict(vars(self))

    def advantages(self, critic: TaskCritic, config: PPOConfig) -> tuple[Array, Array]:
        """Advantages and values, [T, N] each."""
        value, following = (self._values(critic, seen) for seen in (self.seen, self.following))
        discount = config.returns.discount
        found = generalised_advantages(
            self.reward, value, following, self.final, self.ended, discount, config.gae
        )
        return found, value

    @torch.no_grad()
    def _values(self, critic: TaskCritic, seen: Mapping[str, Array]) -> Array:
        task, first = torch.tensor([self.task]), torch.tensor([0])
        buckets = {
            bucket: Bucket(torch.from_numpy(values.reshape(1, -1, *values.shape[2:])), first)
            for bucket, values in seen.items()
        }
        found: Tensor = critic.values(critic(buckets, task, self.steps), task)
        return found.double().numpy().reshape(self.reward.shape)


def steps_of(columns: Sequence[Columns], advantages: Sequence[Array], values: Sequence[Array]) -> TaskSteps:
    """Decisions of one task in a row, columns outermost; "value_target" is advantage + value."""
    seen: dict[str, list[Tensor]] = {}
    fields: dict[str, list[Tensor]] = {}
    total = 0
    for part, advantage, value in zip(columns, advantages, values, strict=True):
        for bucket, rows in part.seen.items():
            seen.setdefault(bucket, []).append(_flat(rows))
        before = np.where(_flat(part.before).numpy(), np.arange(part.steps) - 1 + total, -1)
        found = {
            "index": _flat(part.index),
            "advantage": _flat(advantage),
            "value_target": _flat(advantage + value),
            "time": _flat(part.time),
            "before": torch.from_numpy(before),
            **{name: _flat(rows) for name, rows in part.extras.items()},
        }
        for name, entries in found.items():
            fields.setdefault(name, []).append(entries.float() if entries.dtype == torch.float64 else entries)
        total += part.steps
    return TaskSteps(
        {bucket: torch.cat(parts) for bucket, parts in seen.items()},
        {name: torch.cat(parts) for name, parts in fields.items()},
    )


def _flat(rows: Array) -> Tensor:
    """[T, N, ...] -> [N T, ...]"""
    turned = np.ascontiguousarray(np.swapaxes(rows, 0, 1))
    return torch.from_numpy(turned.reshape(turned.shape[0] * turned.shape[1], *rows.shape[2:]))
