"""From transitions to losses per task; equations are those of Haarnoja et al. 2018 unless named.

With the default settings `explicit.py` computes the losses and gradients of an update instead of
`critic_losses` and `actor_losses` (same numbers up to rounding); both use `td_target` and the value functions
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mtrl.data import Batch, Bucket
from mtrl.nn import ObservationEncoder, ValueHead, select_rows
from mtrl.spaces import Layout

from .config import ExplorationConfig, SACConfig
from .networks import Actor, BatchTasks, ByKind, Observation, Policies, TwinCritic

Target = Callable[[Tensor | None], ByKind]
"""Actions [K_c, B, A_max] of continuous tasks -> raw values, as `TwinCritic` returns them."""


@dataclass(frozen=True)
class TrainingBatch:
    """A batch as the losses read it: on the networks' device, states standardised, rewards scaled."""

    tasks: BatchTasks
    samples: int
    """B"""
    observation: Observation
    next_observation: Observation
    continuous: Tensor
    """[K_c, B, A_max], actions taken."""
    discrete: Tensor
    """[K_d, B], indices taken."""
    reward: Tensor
    """[K, B], on the scale of values."""
    final: Tensor
    """[K, B], True where the target does not bootstrap."""
    temperature: Tensor
    """alpha [K, 1]"""

    @staticmethod
    def of(
        batch: Batch,
        batch_tasks: BatchTasks,
        encoder: ObservationEncoder,
        config: SACConfig,
        reward_scale: Tensor | None,
        temperature: Tensor,
        dtype: torch.dtype,
    ) -> TrainingBatch:
        """`reward_scale` [T] divides rewards; `temperature` [T]; `batch_tasks` is that of the batch, whose
        tasks ascend; states have the networks' `dtype`.
        """
        device = temperature.device
        fields = {name: values.to(device) for name, values in batch.fields.items()}
        buckets = {
            name: Bucket(bucket.values.to(device), bucket.rows.to(device))
            for name, bucket in batch.buckets.items()
        }
        if "state" in buckets:
            state = buckets["state"]
            values = encoder.standardise(state.values, select_rows(batch_tasks.task, state.rows))
            buckets["state"] = Bucket(values.to(dtype), state.rows)
        reward, final = fields["reward"], fields["terminated"]
        if reward_scale is not None:
            reward = reward / select_rows(reward_scale, batch_tasks.task)[:, None]
        if not config.bootstrap_truncated:
            final = final | fields["truncated"]
        observation, next_observation = (
            {name: Bucket(bucket.values[:, moment], bucket.rows) for name, bucket in buckets.items()}
            for moment in (0, 1)
        )
        return TrainingBatch(
            tasks=batch_tasks,
            samples=batch.weight.shape[1],
            observation=observation,
            next_observation=next_observation,
            continuous=select_rows(fields["continuous"], batch_tasks.continuous),
            discrete=select_rows(fields["discrete"], batch_tasks.discrete),
            reward=reward,
            final=final,
            temperature=select_rows(temperature, batch_tasks.task)[:, None],
        )

    def noise(self, generator: torch.Generator) -> Tensor:
        """[K_c, B, A_max], standard normal."""
        return torch.randn(self.continuous.shape, generator=generator, device=self.continuous.device)

    def for_row(self, row: int) -> TrainingBatch:
        """One row of the batch, for a loop over tasks."""
        batch_tasks = self.tasks.for_row(row)

        def select(observation: Observation) -> Observation:
            places = {name: bucket.rows == row for name, bucket in observation.items()}
            first = torch.zeros_like(batch_tasks.task)
            return {
                name: Bucket(observation[name].values[place], first)
                for name, place in places.items()
                if bool(place.any())
            }

        return replace(
            self,
            tasks=batch_tasks,
            observation=select(self.observation),
            next_observation=select(self.next_observation),
            continuous=self.continuous[self.tasks.continuous == row],
            discrete=self.discrete[self.tasks.discrete == row],
            reward=self.reward[row : row + 1],
            final=self.final[row : row + 1],
            temperature=self.temperature[row : row + 1],
        )


def target_entropies(exploration: ExplorationConfig, layout: Layout) -> Tensor:
    """H_target [T] in nats: per action dimension, or as a share of ln(number of actions)."""
    entropies = [
        exploration.discrete_target_entropy * math.log(spec.discrete)
        if spec.is_discrete
        else exploration.target_entropy * spec.continuous
        for spec in layout.actions
    ]
    return torch.tensor(entropies, dtype=torch.float32)


def soft_value(value: Tensor, log_probability: Tensor, temperature: Tensor) -> Tensor:
    """V(s) = Q(s, a) - alpha log pi(a|s) for one drawn action (eq. 3); [..., B] each, `temperature`
    broadcastable.
    """
    return torch.addcmul(value, temperature, log_probability, value=-1.0)


def discrete_soft_value(values: Tensor, log_policy: Tensor, temperature: Tensor) -> Tensor:
    """V(s) = sum_a pi(a|s) (Q(s, a) - alpha log pi(a|s)), [..., B, A] -> [..., B] (Christodoulou 2019, eq.
    10). Illegal actions have log probability -inf and count nothing.
    """
    policy = log_policy.exp()
    terms = values - temperature[..., None] * log_policy.clamp_min(-1e8)
    return (policy * terms).masked_fill(log_policy == -torch.inf, 0.0).sum(-1)


def bootstrapped(reward: Tensor, final: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """r + gamma (1 - final) V(s') [..., B] (eq. 2). `final` is termination; a truncated step bootstraps
    (Pardo et al. 2018, eq. 6).
    """
    return torch.add(reward, next_value.masked_fill(final, 0.0), alpha=discount)


def temperature_gradient(entropy: Tensor, target_entropy: Tensor) -> Tensor:
    """[K], d/d(log alpha) of J(alpha) = log alpha (H - H_target), of each task's own temperature (eq. 18, in
    the form in log alpha): descending it raises alpha where the entropy is below its target.
    """
    return entropy - target_entropy


def td_target(
    config: SACConfig, batch: TrainingBatch, noise: Tensor, policy: Policies, target: Target, head: ValueHead
) -> Tensor:
    """[K, B]; `policy` is that of the next observations, `target` gives the averaged critics' raw values of
    actions in them, and `noise` [K_c, B, A_max] draws these.
    """
    batch_tasks, (gaussian, log_policy) = batch.tasks, policy
    action, log_probability = None, None
    if gaussian is not None:
        if config.entropy_in_target:
            action, log_probability = gaussian.sample(noise)
        else:
            action = gaussian.action(noise)
    q_taken, q_all = target(action)
    continuous, discrete = None, None
    # V(s') from the smaller of the twins, min_i Q_i(s', a') - alpha log pi(a'|s')  (eq. 3)
    if q_taken is not None:
        continuous = head.values(q_taken).amin(0)
        if log_probability is not None:
            temperature = select_rows(batch.temperature, batch_tasks.continuous)
            continuous = soft_value(continuous, log_probability, temperature)
    if q_all is not None and log_policy is not None:
        temperature = select_rows(batch.temperature, batch_tasks.discrete)
        temperature = temperature if config.entropy_in_target else torch.zeros_like(temperature)
        discrete = discrete_soft_value(head.values(q_all).amin(0), log_policy, temperature)
    next_value = batch_tasks.merged(continuous, discrete)
    targets = bootstrapped(batch.reward, batch.final, next_value, config.discount)
    return targets.clamp(-config.value_clip, config.value_clip) if config.value_clip else targets


def critic_losses(critic: TwinCritic, batch: TrainingBatch, target: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [K] against `target` [K, B]; and the critics' features [K, B, size], without gradient.
    Differentiated by autograd; `explicit.py` replaces it where `ExplicitGradientComputation` serves.
    """
    batch_tasks = batch.tasks
    features = critic.observer(batch.observation, batch_tasks.count, batch.samples)
    q_taken, q_all = critic(features, batch_tasks, batch.continuous if batch_tasks.has_continuous else None)
    q_index = None
    if q_all is not None:
        index = batch.discrete[None, :, :, None, None].expand(2, -1, -1, 1, critic.head.outputs)
        q_index = q_all.gather(3, index).squeeze(3)
    if q_taken is None or q_index is None:
        raw = batch_tasks.merged(q_taken, q_index)
    else:
        raw = batch_tasks.merged(q_taken.transpose(0, 1), q_index.transpose(0, 1)).transpose(0, 1)
    # J_Q = E[(Q(s, a) - target)^2 / 2], or its cross entropy (BRC), the mean over samples and twins  (eq. 5)
    return critic.head.losses(raw, target).mean(dim=(0, 2)), features.detach()


def actor_losses(
    actor: Actor, critic: TwinCritic, features: Tensor, batch: TrainingBatch, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [K]; and entropies [K], of -log pi of the drawn action, or of the discrete policy, without
    gradient. `features` are the critics' of the batch. Differentiated by autograd; see `critic_losses`.
    """
    batch_tasks = batch.tasks
    gaussian, log_policy = actor(batch.observation, batch_tasks, batch.samples)
    action, log_probability = None, None
    if gaussian is not None:
        action, log_probability = gaussian.sample(noise)
    q_taken, q_all = critic(features, batch_tasks, action)
    losses: list[Tensor | None] = [None, None]
    entropies: list[Tensor | None] = [None, None]
    if q_taken is not None and log_probability is not None:
        value = critic.head.values(q_taken).amin(0)
        temperature = select_rows(batch.temperature, batch_tasks.continuous)
        # J_pi = E[alpha log pi(f(noise, s)|s) - min_i Q_i(s, f(noise, s))]  (eq. 9)
        losses[0] = -soft_value(value, log_probability, temperature).mean(1)
        entropies[0] = -log_probability.detach().mean(1)
    if q_all is not None and log_policy is not None:
        values = critic.head.values(q_all).amin(0).detach()
        temperature = select_rows(batch.temperature, batch_tasks.discrete)
        # J_pi = E[sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a))]  (Christodoulou 2019, eq. 12)
        losses[1] = -discrete_soft_value(values, log_policy, temperature).mean(1)
        one = log_policy.new_ones(1, 1)
        entropies[1] = discrete_soft_value(torch.zeros_like(values), log_policy.detach(), one).mean(1)
    return batch_tasks.merged(*losses), batch_tasks.merged(*entropies)
