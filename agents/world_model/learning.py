"""One update's losses: the model unrolled over sequences, its values, and the policy prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mtrl.data import Batch
from mtrl.nn import TanhGaussian, TaskGates

from .losses import (
    bootstrap_index,
    cloning_weight,
    continuous_policy_loss,
    discrete_policy_loss,
    mean_by_task,
    n_step_targets,
)
from .networks import Seen, WorldModel

RANGE = (0.05, 0.95)
"""Quantiles of the targets whose distance is a task's Q scale (TD-MPC2, appendix A)."""


@dataclass
class Sequences:
    """A batch of K tasks x B sequences of T steps, on the learner's device; time comes second: [K, T, B]."""

    task: torch.Tensor
    """[K]"""
    seen: Seen
    """Standardised observations, [K_b, (T + 1) B, ...]."""
    action: torch.Tensor
    """Coded, [K, T, B, A + n]."""
    reward: torch.Tensor
    """Divided by the task's scale, [K, T, B]."""
    terminated: torch.Tensor
    """[K, T, B], 1.0 where terminal."""
    weight: torch.Tensor
    """[K, T, B], 0 past the end of an episode."""
    planned: torch.Tensor | None
    """What was planned, [K, T, B, A + n]; NaN where nothing was."""
    discount: torch.Tensor
    """[K, 1]"""
    scale: torch.Tensor
    """Q scale, [K, 1]."""
    temperature: torch.Tensor
    """[K, 1]"""
    discrete: torch.Tensor
    """[K], whether the task acts by an index."""

    def only(self, row: int) -> Sequences:
        """The part of one task, for a loop over tasks."""
        part = slice(row, row + 1)
        seen = {}
        for name, (values, rows) in self.seen.items():
            where = (rows == row).nonzero().flatten()
            if len(where):
                seen[name] = (values[where], torch.zeros(1, dtype=torch.int64, device=rows.device))
        return Sequences(
            self.task[part], seen, self.action[part], self.reward[part], self.terminated[part],
            self.weight[part], None if self.planned is None else self.planned[part], self.discount[part],
            self.scale[part], self.temperature[part], self.discrete[part],
        )  # fmt: skip


def sequences_of(
    model: WorldModel,
    batch: Batch,
    reward_scale: torch.Tensor,
    discount: torch.Tensor,
    scale: torch.Tensor,
    temperature: torch.Tensor,
) -> Sequences:
    """A replayed batch for the losses; the last four [tasks] are of all tasks of the set."""
    device, task = discount.device, batch.task_index.to(discount.device)
    seen = {}
    for name, bucket in batch.buckets.items():
        rows = bucket.rows.to(device)
        values = bucket.values.to(device).flatten(1, 2)
        seen[name] = (model.observer.standardise(values, task[rows]) if name == "state" else values, rows)
    discrete = torch.as_tensor(model.layout.discrete_tasks, device=device)[task]
    fields = {name: values.to(device) for name, values in batch.fields.items()}
    return Sequences(
        task=task,
        seen=seen,
        action=model.coded(fields["continuous"], fields["discrete"], discrete),
        reward=fields["reward"] / reward_scale[task][:, None, None],
        terminated=fields["terminated"].float(),
        weight=batch.weight.to(device),
        planned=fields.get("planned"),
        discount=discount[task][:, None],
        scale=scale[task][:, None],
        temperature=temperature[task][:, None],
        discrete=discrete,
    )


class Losses:
    """The losses of TD-MPC2 (Hansen et al. 2024, equations 3 and 4), each a mean over one task's samples.

    Differences: returns run to the end of the sequence (n = T, ..., 1) and stop at terminations; scales and
    temperatures belong to a task; entropy is taken after the squash.
    """

    def __init__(self, model: WorldModel, target_body: nn.Module, target_out: nn.Module) -> None:
        """`target_body` and `target_out` are the moving averages of the Q functions."""
        self.model, self.config = model, model.config
        self.target_body, self.target_out = target_body, target_out
        self.latest: dict[str, torch.Tensor] = {}
        """Name -> [K] of the latest call, without gradient."""
        self.gates: TaskGates | None = None

    def model_losses(
        self, batch: Sequences, noise: torch.Generator, gate_noise: torch.Generator
    ) -> torch.Tensor:
        """[K]: consistency, reward, Q and termination over the unrolled sequence."""
        model, coefficient = self.model, self.config.losses
        steps, samples = batch.weight.shape[1:]
        embedded = model.embed(batch.task)
        self.gates = gates = model.experts.gates(batch.task, explore=gate_noise)
        encoded = model.encode(batch.seen, batch.task, embedded).unflatten(1, (steps + 1, samples))
        self.first = encoded[:, 0].detach()
        targets = self._targets(batch, encoded.detach(), embedded.detach(), noise)
        rho = coefficient.rho ** torch.arange(steps, device=batch.weight.device)
        weight = batch.weight * rho[:, None]
        latent, latents, rewards, terminations = encoded[:, 0], [], [], []
        consistency = torch.zeros_like(batch.weight[:, 0])
        for t in range(steps):
            latents.append(latent)
            step = model.step(latent, batch.action[:, t], embedded, gates)
            latent = step.latent
            # equation 3, first term: the next latent against the encoder's, which is constant
            missed = (latent - encoded[:, t + 1].detach()).square().mean(-1)
            consistency = consistency + weight[:, t] * missed
            rewards.append(step.reward)
            terminations.append(step.termination)
        total = weight.sum((1, 2)).clamp_min(1e-8)
        consistency_loss = consistency.sum(-1) / total
        unrolled = torch.stack(latents, dim=1)
        reward_loss = self._cross_entropy(torch.stack(rewards, dim=1), batch.reward, weight)
        q = model.q_logits(unrolled.flatten(1, 2), batch.action.flatten(1, 2), embedded)
        q = q.unflatten(2, (steps, samples))
        q_loss = self._cross_entropy(q, targets.expand(len(q), *targets.shape), weight).mean(0)
        # dynamics alone predict terminations; past the end of an episode there is no step to predict
        logits = torch.stack(terminations, dim=1)
        binary = nn.functional.binary_cross_entropy_with_logits(logits, batch.terminated, reduction="none")
        termination_loss = (binary * weight).sum((1, 2)) / total
        self.latest = {
            "consistency_loss": consistency_loss.detach(),
            "reward_loss": reward_loss.detach(),
            "q_loss": q_loss.detach(),
            "termination_loss": termination_loss.detach(),
            "value": mean_by_task(targets.transpose(0, 1), batch.weight.transpose(0, 1)),
            "q_range": _range(targets, batch.weight),
        }
        return (
            coefficient.consistency * consistency_loss
            + coefficient.reward * reward_loss
            + coefficient.value * q_loss
            + coefficient.termination * termination_loss
        )

    def policy_losses(self, batch: Sequences, noise: torch.Generator) -> torch.Tensor:
        """[K]: of the policy at the encoded first observation; `latest` gains the entropies."""
        model, latent, coefficient = self.model, self.first, self.config.losses.cloning
        embedded = model.embed(batch.task).detach()
        gaussian, logits = model.prior(latent, batch.task, embedded)
        loss = torch.zeros_like(batch.weight[:, 0])
        entropy = torch.zeros_like(loss)
        continuous = (~batch.discrete).nonzero().flatten()
        discrete = batch.discrete.nonzero().flatten()
        if len(continuous):
            action, log_probability = gaussian.sample(_normal(gaussian, noise))
            value = self._q(latent, action, batch, embedded, continuous)
            each = continuous_policy_loss(
                value, log_probability[continuous], batch.temperature[continuous], batch.scale[continuous]
            )
            loss = loss.index_copy(0, continuous, each)
            entropy = entropy.index_copy(0, continuous, -log_probability[continuous].detach())
        if len(discrete):
            values = self._q_of_all(latent, batch, embedded, discrete)
            log_probability = model.log_policy(logits[discrete], batch.task[discrete])
            probability = log_probability.exp()
            # 0 log 0 = 0 for actions that are not legal
            log_probability = log_probability.masked_fill(probability == 0, 0.0)
            each = discrete_policy_loss(
                values, probability, log_probability, batch.temperature[discrete], batch.scale[discrete]
            )
            loss = loss.index_copy(0, discrete, each)
            entropy = entropy.index_copy(0, discrete, -(probability * log_probability).sum(-1).detach())
        weight = batch.weight[:, 0]
        if coefficient > 0 and batch.planned is not None:
            loss = loss + coefficient * self._cloning(batch, embedded, gaussian, logits)
        self.latest["entropy"] = mean_by_task(entropy, weight)
        found = mean_by_task(loss, weight)
        self.latest["policy_loss"] = found.detach()
        return found

    def _cloning(
        self,
        batch: Sequences,
        embedded: torch.Tensor,
        gaussian: TanhGaussian,
        logits: torch.Tensor,
    ) -> torch.Tensor:
        """-log pi(planned), weighted by softmax(Q) of what was planned, within a task: [K, B]."""
        assert batch.planned is not None
        target = batch.planned[:, 0]
        there = torch.isfinite(target).all(-1)
        target = torch.nan_to_num(target)
        width = self.model.layout.continuous_size
        with torch.no_grad():
            value = self.model.values(self.model.q_logits(self.first, target, embedded)).mean(0)
            share = cloning_weight(value, there, batch.scale)
        # squared error of the mean for a Gaussian, cross entropy for a categorical
        each = (gaussian.mode() - target[..., :width]).square().sum(-1)
        rows = batch.discrete.nonzero().flatten()
        if len(rows):
            logs = self.model.log_policy(logits[rows], batch.task[rows])
            logs = logs.masked_fill(logs == -torch.inf, 0.0)
            each = each.index_copy(0, rows, -(target[rows][..., width:] * logs).sum(-1))
        return share * each

    @torch.no_grad()
    def _targets(
        self, batch: Sequences, encoded: torch.Tensor, embedded: torch.Tensor, noise: torch.Generator
    ) -> torch.Tensor:
        """[K, T, B], the returns that Q functions are fitted to."""
        reward, terminated, weight = (
            values.transpose(0, 1) for values in (batch.reward, batch.terminated, batch.weight)
        )
        last = bootstrap_index(weight)
        index = last[:, None, :, None].expand(-1, 1, -1, encoded.shape[-1])
        latent = encoded.gather(1, index).squeeze(1)
        gaussian, logits = self.model.prior(latent, batch.task, embedded)
        drawn = gaussian.action(_normal(gaussian, noise))
        chosen = torch.zeros(drawn.shape[:-1], dtype=torch.int64, device=drawn.device)
        discrete = batch.discrete.nonzero().flatten()
        if len(discrete):
            probability = self.model.log_policy(logits[discrete], batch.task[discrete]).exp()
            index = torch.multinomial(probability.flatten(0, 1), 1, generator=noise)
            chosen[discrete] = index.view(probability.shape[:-1])
        action = self.model.coded(drawn, chosen, batch.discrete)
        # the smaller of two members, drawn anew for every update (equation 4)
        body = self.target_body(self.model.q_inputs(latent, action, embedded))
        values = self.model.values(self.target_out(body))
        pair = torch.randperm(len(values), generator=noise, device=values.device)[:2]
        targets = n_step_targets(reward, terminated, weight, values[pair].amin(0), batch.discount)
        return targets.transpose(0, 1)

    def _q(
        self,
        latent: torch.Tensor,
        action: torch.Tensor,
        batch: Sequences,
        embedded: torch.Tensor,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """Mean of the ensemble at the policy's continuous actions, for tasks `rows`: [k, B]."""
        zero = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
        coded = self.model.coded(action, zero, batch.discrete)[rows]
        return self.model.values(self.model.q_logits(latent[rows], coded, embedded[rows])).mean(0)

    @torch.no_grad()
    def _q_of_all(
        self, latent: torch.Tensor, batch: Sequences, embedded: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Mean of the ensemble at every discrete action, [k, B, n]; a constant for the policy."""
        layout = self.model.layout
        count, samples = len(rows), latent.shape[1]
        choices = torch.eye(layout.discrete_size, device=latent.device)
        choices = nn.functional.pad(choices, (layout.continuous_size, 0))
        action = choices.repeat(samples, 1).expand(count, -1, -1)
        spread = latent[rows].repeat_interleave(layout.discrete_size, dim=1)
        logits = self.model.q_logits(spread, action, embedded[rows])
        return self.model.values(logits).mean(0).unflatten(1, (samples, layout.discrete_size))

    def _cross_entropy(self, logits: torch.Tensor, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Against the two-hot of `value`, in symlog units: [..., K, T, B, bins] -> [..., K]."""
        each = self.model.number.losses(logits, value)
        return (each * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1e-8)


def _normal(like: TanhGaussian, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.mean.shape, generator=generator, device=like.mean.device)


def _range(targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[K], the distance of two quantiles of the targets; padding counts as the first step's target."""
    values = torch.where(weight > 0, targets, targets[:, :1]).flatten(1)
    low, high = torch.quantile(values, torch.tensor(RANGE, device=values.device), dim=1)
    return high - low


def named_losses(latest: Mapping[str, torch.Tensor], names: list[str]) -> dict[str, float]:
    """name/task -> number."""
    return {
        f"{name}/{task}": value
        for name, values in latest.items()
        for task, value in zip(names, values.tolist(), strict=True)
    }
