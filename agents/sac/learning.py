"""One batch through the networks: from transitions to losses per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from mtrl.data import Batch, Bucket
from mtrl.spaces import Layout

from .config import SACConfig
from .losses import (
    bootstrapped,
    categorical_loss,
    discrete_soft_value,
    scalar_loss,
    soft_value,
    squashed_gaussian,
)
from .networks import Actor, Observer, Routing, Seen, TwinCritic, picked, spread


@dataclass(frozen=True)
class Learning:
    """The constants of an update."""

    config: SACConfig
    mask: torch.Tensor
    """[K, A_max], 1 where the task has an action dimension."""
    target_entropy: torch.Tensor
    """[K], in nats."""

    @staticmethod
    def of(config: SACConfig, layout: Layout) -> Learning:
        """For all tasks of a layout."""
        explore = config.exploration
        targets = [
            explore.discrete_target_entropy * math.log(spec.discrete)
            if spec.is_discrete
            else explore.target_entropy * spec.continuous
            for spec in layout.actions
        ]
        mask = torch.from_numpy(layout.continuous_mask.astype(np.float32))
        return Learning(config, mask, torch.tensor(targets))


@dataclass(frozen=True)
class Judged:
    """What the critics' half of an update leaves behind."""

    losses: torch.Tensor
    """[K, B], mean over the twins."""
    values: torch.Tensor
    """[K, B], the targets, without gradient."""
    observed: torch.Tensor
    """[K, B, size], what the critics saw, without gradient."""


@dataclass(frozen=True)
class Acted:
    """What the actor's half of an update leaves behind."""

    losses: torch.Tensor
    """[K, B]"""
    entropy: torch.Tensor
    """[K, B], -log pi of the drawn action, or the entropy of a discrete policy; without gradient."""


def critic_losses(
    learning: Learning,
    actor: Actor,
    critic: TwinCritic,
    target: TwinCritic,
    batch: Batch,
    reward: torch.Tensor,
    temperature: torch.Tensor,
    noise: torch.Generator,
) -> Judged:
    """Squared error or cross entropy of both critics against one target (SAC, equations 3 and 5).

    `reward` [K, B] on the scale of values, `temperature` [K, 1]. The target takes the smaller twin.
    """
    config, task = learning.config, batch.task_index
    goal = _targets(learning, actor, target, batch, reward, temperature, noise)
    observed = critic.observer(at(batch, 0), task, goal.shape[1])
    chosen, every = critic(observed, task, batch.fields["continuous"])
    way = critic.route(task)
    index = picked(batch.fields["discrete"], way.discrete, 0)
    taken = every.gather(3, index[None, :, :, None, None].expand(2, -1, -1, 1, critic.bins)).squeeze(3)
    raw = _merged(way, chosen.transpose(0, 1), taken.transpose(0, 1))
    both = goal[:, None].expand(-1, 2, -1)
    if critic.bins > 1:
        losses = categorical_loss(raw, both, critic.support)
    else:
        predicted = critic.values(raw)
        if config.value_clip:
            predicted = predicted.clamp(-config.value_clip, config.value_clip)
        losses = scalar_loss(predicted, both)
    return Judged(losses.mean(1), goal, observed.detach())


def actor_losses(
    learning: Learning,
    actor: Actor,
    critic: TwinCritic,
    observed: torch.Tensor,
    batch: Batch,
    temperature: torch.Tensor,
    noise: torch.Generator,
) -> Acted:
    """alpha log pi - Q for a drawn action (SAC, equation 7), or its mean over a discrete policy."""
    task = batch.task_index
    width = batch.weight.shape[1]
    mean, log_deviation, log_policy = actor(at(batch, 0), task, width)
    way = actor.route(task)
    action, log_probability = _draw(learning, task[way.continuous], mean, log_deviation, noise)
    chosen, every = critic(observed, task, spread(action, way.continuous, len(task)))
    value = critic.values(chosen).amin(0)
    continuous = -soft_value(value, log_probability, picked(temperature, way.continuous, 0))
    values = critic.values(every).amin(0).detach()
    discrete = -discrete_soft_value(values, log_policy, picked(temperature, way.discrete, 0))
    surprise = discrete_soft_value(torch.zeros_like(values), log_policy, torch.ones(1, 1))
    return Acted(_merged(way, continuous, discrete), _merged(way, -log_probability, surprise).detach())


def at(batch: Batch, moment: int) -> Seen:
    """What the decisions of a batch saw (0), or their successors (1)."""
    return {name: (bucket.values[:, moment], bucket.rows) for name, bucket in batch.buckets.items()}


def standardised(batch: Batch, observer: Observer) -> Batch:
    """The batch with its states as the torsos take them; done once for all networks, which share the
    statistics.
    """
    if "state" not in batch.buckets:
        return batch
    bucket = batch.buckets["state"]
    values = observer.standardise(bucket.values, batch.task_index[bucket.rows])
    return replace(batch, buckets={**batch.buckets, "state": Bucket(values, bucket.rows)})


@torch.no_grad()
def _targets(
    learning: Learning,
    actor: Actor,
    target: TwinCritic,
    batch: Batch,
    reward: torch.Tensor,
    temperature: torch.Tensor,
    noise: torch.Generator,
) -> torch.Tensor:
    """[K, B], r + gamma (1 - terminated) V(s')."""
    config, task, width = learning.config, batch.task_index, batch.weight.shape[1]
    mean, log_deviation, log_policy = actor(at(batch, 1), task, width)
    way = actor.route(task)
    action, log_probability = _draw(learning, task[way.continuous], mean, log_deviation, noise)
    acted = spread(action, way.continuous, len(task))
    chosen, every = target(target.observer(at(batch, 1), task, width), task, acted)
    bonus = temperature if config.entropy_in_target else torch.zeros_like(temperature)
    following = _merged(
        way,
        soft_value(target.values(chosen).amin(0), log_probability, picked(bonus, way.continuous, 0)),
        discrete_soft_value(target.values(every).amin(0), log_policy, picked(bonus, way.discrete, 0)),
    )
    final = batch.fields["terminated"]
    if not config.bootstrap_truncated:
        final = final | batch.fields["truncated"]
    goal = bootstrapped(reward, final, following, config.discount)
    return goal.clamp(-config.value_clip, config.value_clip) if config.value_clip else goal


def _merged(way: Routing, continuous: torch.Tensor, discrete: torch.Tensor) -> torch.Tensor:
    """[K_c, ...] and [K_d, ...] -> [K, ...], every row from its own kind."""
    if not len(way.discrete):
        return continuous
    if not len(way.continuous):
        return discrete
    whole = continuous.new_zeros(len(continuous) + len(discrete), *continuous.shape[1:])
    return whole.index_copy(0, way.continuous, continuous).index_copy(0, way.discrete, discrete)


def _draw(
    learning: Learning,
    task: torch.Tensor,
    mean: torch.Tensor,
    log_deviation: torch.Tensor,
    noise: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(mean.shape, generator=noise)
    return squashed_gaussian(mean, log_deviation, drawn, learning.mask[task][:, None])
