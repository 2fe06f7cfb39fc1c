"""One batch through the networks: from transitions to losses per task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from mtrl.data import Batch, Bucket
from mtrl.nn import ObservationEncoder, select_rows
from mtrl.spaces import Layout

from .config import SACConfig
from .losses import bootstrapped, discrete_soft_value, soft_value
from .networks import Actor, Observation, Routing, TwinCritic


@dataclass(frozen=True)
class Learning:
    """The constants of an update."""

    config: SACConfig
    target_entropy: torch.Tensor
    """[K], in nats."""

    @staticmethod
    def of(config: SACConfig, layout: Layout, device: torch.device) -> Learning:
        """For all tasks of a layout."""
        explore = config.exploration
        targets = [
            explore.discrete_target_entropy * math.log(spec.discrete)
            if spec.is_discrete
            else explore.target_entropy * spec.continuous
            for spec in layout.actions
        ]
        return Learning(config, torch.tensor(targets, dtype=torch.float32, device=device))


@dataclass(frozen=True)
class Sample:
    """A batch as the losses take it: on the networks' device, states standardised, rewards scaled."""

    way: Routing
    width: int
    """B"""
    decided: Observation
    """What the decisions saw."""
    followed: Observation
    """What came next."""
    continuous: torch.Tensor
    """[K_c, B, A_max], actions taken."""
    discrete: torch.Tensor
    """[K_d, B], indices taken."""
    reward: torch.Tensor
    """[K, B], on the scale of values."""
    final: torch.Tensor
    """[K, B], True where nothing follows."""
    temperature: torch.Tensor
    """[K, 1]"""

    def noise(self, generator: torch.Generator) -> torch.Tensor:
        """[K_c, B, A_max], standard normal."""
        return torch.randn(self.continuous.shape, generator=generator, device=self.continuous.device)


def sample_of(
    learning: Learning,
    batch: Batch,
    way: Routing,
    observer: ObservationEncoder,
    reward_scale: torch.Tensor | None,
    temperature: torch.Tensor,
    kind: torch.dtype,
) -> Sample:
    """`reward_scale` [T] divides rewards; `temperature` [T]. `way` is the batch's, whose tasks ascend. States
    come in the networks' own `kind` of number.
    """
    device = temperature.device
    fields, buckets = batch.fields, dict(batch.buckets)
    if device.type != "cpu":
        fields = {name: values.to(device) for name, values in fields.items()}
        buckets = {
            name: Bucket(bucket.values.to(device), bucket.rows.to(device)) for name, bucket in buckets.items()
        }
    if "state" in buckets:
        state = buckets["state"]
        values = observer.standardise(state.values, select_rows(way.task, state.rows))
        buckets["state"] = Bucket(values.to(kind), state.rows)
    reward = fields["reward"]
    if reward_scale is not None:
        reward = reward / select_rows(reward_scale, way.task)[:, None]
    final = fields["terminated"]
    if not learning.config.bootstrap_truncated:
        final = final | fields["truncated"]
    return Sample(
        way=way,
        width=batch.weight.shape[1],
        decided=_at(buckets, 0),
        followed=_at(buckets, 1),
        continuous=select_rows(fields["continuous"], way.continuous),
        discrete=select_rows(fields["discrete"], way.discrete),
        reward=reward,
        final=final,
        temperature=select_rows(temperature, way.task)[:, None],
    )


def only(sample: Sample, row: int) -> Sample:
    """The sample of one row of the batch, for a loop over tasks."""
    way, device = sample.way, sample.reward.device
    index = torch.tensor([row], device=device)
    here = {"continuous": way.continuous == row, "discrete": way.discrete == row}
    first = torch.zeros(1, dtype=torch.int64, device=device)
    none = first[:0]
    acts = bool(here["continuous"].any())
    task = way.task[index]
    alone = Routing(
        task,
        first if acts else none,
        none if acts else first,
        task if acts else none,
        none if acts else task,
        way.mask[here["continuous"]],
    )

    def cut(seen: Observation) -> Observation:
        found = {}
        for name, bucket in seen.items():
            place = (bucket.rows == row).nonzero().squeeze(1)
            if len(place):
                found[name] = Bucket(bucket.values[place], first)
        return found

    return replace(
        sample,
        way=alone,
        decided=cut(sample.decided),
        followed=cut(sample.followed),
        continuous=sample.continuous[here["continuous"]],
        discrete=sample.discrete[here["discrete"]],
        reward=sample.reward[index],
        final=sample.final[index],
        temperature=sample.temperature[index],
    )


@torch.no_grad()
def targets(
    learning: Learning, actor: Actor, target: TwinCritic, sample: Sample, noise: torch.Tensor
) -> torch.Tensor:
    """[K, B], r + gamma (1 - terminated) V(s'), with the smaller of the target's twins (SAC, equation 3).

    `noise` [K_c, B, A_max] draws the following actions.
    """
    config, way = learning.config, sample.way
    gaussian, log_policy = actor(sample.followed, way, sample.width)
    action, log_probability = None, None
    if gaussian is not None:
        if config.entropy_in_target:
            action, log_probability = gaussian.sample(noise)
        else:
            action = gaussian.action(noise)
    observed = target.observer(sample.followed, way.count, sample.width)
    chosen, every = target(observed, way, action)
    continuous, discrete = None, None
    if chosen is not None:
        continuous = target.head.values(chosen).amin(0)
        if log_probability is not None:
            bonus = select_rows(sample.temperature, way.continuous)
            continuous = soft_value(continuous, log_probability, bonus)
    if every is not None and log_policy is not None:
        bonus = select_rows(sample.temperature, way.discrete)
        bonus = bonus if config.entropy_in_target else torch.zeros_like(bonus)
        discrete = discrete_soft_value(target.head.values(every).amin(0), log_policy, bonus)
    following = way.merged(continuous, discrete)
    goal = bootstrapped(sample.reward, sample.final, following, config.discount)
    return goal.clamp(-config.value_clip, config.value_clip) if config.value_clip else goal


def critic_losses(
    critic: TwinCritic, sample: Sample, goal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [K]: the mean over samples and twins of squared error or cross entropy against `goal`
    [K, B] (SAC, equation 5); and what the critics saw, [K, B, size], without gradient.
    """
    way = sample.way
    observed = critic.observer(sample.decided, way.count, sample.width)
    acted = sample.continuous if way.acts_by_vector else None
    chosen, every = critic(observed, way, acted)
    taken = None
    if every is not None:
        index = sample.discrete[None, :, :, None, None].expand(2, -1, -1, 1, critic.head.outputs)
        taken = every.gather(3, index).squeeze(3)
    if chosen is None or taken is None:
        raw = way.merged(chosen, taken)
    else:
        raw = way.merged(chosen.transpose(0, 1), taken.transpose(0, 1)).transpose(0, 1)
    losses = critic.head.losses(raw, goal)
    return losses.mean(dim=(0, 2)), observed.detach()


def actor_losses(
    actor: Actor, critic: TwinCritic, observed: torch.Tensor, sample: Sample, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [K], the mean of alpha log pi - Q for a drawn action (SAC, equation 7), or of its mean over a
    discrete policy; and entropies [K], of -log pi of the drawn action, or of the discrete policy, without
    gradient.
    """
    way = sample.way
    gaussian, log_policy = actor(sample.decided, way, sample.width)
    action, log_probability = None, None
    if gaussian is not None:
        action, log_probability = gaussian.sample(noise)
    chosen, every = critic(observed, way, action)
    losses: list[torch.Tensor | None] = [None, None]
    entropies: list[torch.Tensor | None] = [None, None]
    if chosen is not None and log_probability is not None:
        value = critic.head.values(chosen).amin(0)
        temperature = select_rows(sample.temperature, way.continuous)
        losses[0] = -soft_value(value, log_probability, temperature).mean(1)
        entropies[0] = -log_probability.detach().mean(1)
    if every is not None and log_policy is not None:
        values = critic.head.values(every).amin(0).detach()
        temperature = select_rows(sample.temperature, way.discrete)
        losses[1] = -discrete_soft_value(values, log_policy, temperature).mean(1)
        surprise = discrete_soft_value(
            torch.zeros_like(values), log_policy.detach(), log_policy.new_ones(1, 1)
        )
        entropies[1] = surprise.mean(1)
    return way.merged(*losses), way.merged(*entropies)


def _at(buckets: Mapping[str, Bucket], moment: int) -> Observation:
    """What the decisions of a batch saw (0), or their successors (1)."""
    return {name: Bucket(bucket.values[:, moment], bucket.rows) for name, bucket in buckets.items()}
