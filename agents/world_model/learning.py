"""One update's losses: the model unrolled over sequences, its values, and the policy prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from mtrl.nn import TanhGaussian, TaskGates, compiled, uses_bf16

from .losses import (
    bootstrap_index,
    cloning_weight,
    continuous_policy_loss,
    discrete_policy_loss,
    mean_by_task,
    n_step_targets,
)
from .networks import WorldModel
from .sequences import Sequences

QFunctions = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Latent, coded action and embedding -> values of every member, [n, K, B]."""
RANGE = (0.05, 0.95)
"""Quantiles of the targets whose distance is a task's Q scale (TD-MPC2, appendix A)."""


class ModelTerms(NamedTuple):
    """What one pass of the model over a batch gives."""

    losses: torch.Tensor
    """[K]"""
    facts: dict[str, torch.Tensor]
    """Name -> [K]."""
    first: torch.Tensor
    """Latent of the first observation, [K, B, d]."""
    targets: torch.Tensor
    """[T B, K]; NaN past the end of an episode."""


class PolicyTerms(NamedTuple):
    """What one pass of the policy prior gives, [K] each."""

    losses: torch.Tensor
    policy_loss: torch.Tensor
    """Without imitation."""
    entropy: torch.Tensor


class Losses:
    """The losses of TD-MPC2 (Hansen et al. 2024, equations 3 and 4), each a mean over one task's samples.

    Differences: returns run to the end of the sequence (n = T, ..., 1) and stop at terminations; scales and
    temperatures belong to a task; entropy is taken after the squash.
    """

    def __init__(self, model: WorldModel, target_body: nn.Module, target_out: nn.Module) -> None:
        """`target_body` and `target_out` are the moving averages of the Q functions."""
        self.model, self.config = model, model.config
        # noise and gates are made outside of these two, so that each is one graph
        self._model_terms, self._policy_terms = self._unrolled, self._improved
        if model.config.compile:
            self._model_terms, self._policy_terms = compiled(self._unrolled), compiled(self._improved)
        self.target_body, self.target_out = target_body, target_out
        self.latest: dict[str, torch.Tensor] = {}
        """Name -> [K] of the latest call, without gradient."""
        self.gates: TaskGates | None = None
        self.targets = torch.empty(0)
        """Of the latest call, [T B, K]; NaN past the end of an episode."""

    def model_losses(
        self, batch: Sequences, noise: torch.Generator, gate_noise: torch.Generator
    ) -> torch.Tensor:
        """[K]: consistency, reward, Q and termination over the unrolled sequence."""
        self.gates = self.model.experts.gates(batch.task, explore=gate_noise)
        # the smaller of two members, drawn for every update (equation 4)
        members = self.config.sizes.q_functions
        pair = torch.randperm(members, generator=noise, device=noise.device)[:2]
        with self._autocast(noise.device):
            found = self._model_terms(batch, self.gates, pair, self._normal(batch, noise))
        self.latest, self.first, self.targets = found.facts, found.first, found.targets
        return found.losses

    def policy_losses(self, batch: Sequences, noise: torch.Generator) -> torch.Tensor:
        """[K]: of the policy at the encoded first observation; `latest` gains the entropies."""
        with self._autocast(noise.device):
            found = self._policy_terms(batch, self.first, self._normal(batch, noise))
        self.latest |= {"entropy": found.entropy, "policy_loss": found.policy_loss}
        return found.losses

    def _autocast(self, device: torch.device) -> torch.autocast:
        """Products in bf16 where the settings ask for it."""
        return torch.autocast(device.type, torch.bfloat16, uses_bf16(self.config.precision, device))

    def _normal(self, batch: Sequences, generator: torch.Generator) -> torch.Tensor | None:
        """Noise for an action of every sequence, [K, B, A]; None where no task takes any."""
        if not len(batch.continuous_rows):
            return None
        shape = (len(batch.task), batch.weight.shape[2], self.model.layout.continuous_size)
        return torch.randn(shape, generator=generator, device=generator.device)

    def _unrolled(
        self, batch: Sequences, gates: TaskGates, pair: torch.Tensor, normal: torch.Tensor | None
    ) -> ModelTerms:
        model, coefficient = self.model, self.config.losses
        steps, samples = batch.weight.shape[1:]
        embedded = model.embed(batch.task)
        latent = self._encoded(batch, embedded, slice(0, 1))[:, 0]
        first = latent.detach()
        with torch.no_grad():
            # equation 3: the encoder's latents of later observations are constants
            after = self._encoded(batch, embedded, slice(1, None))
            encoded = torch.cat([first[:, None], after], dim=1)
            targets = self._targets(batch, encoded, embedded, pair, normal)
        rho = coefficient.rho ** torch.arange(steps, device=batch.weight.device)
        weight = batch.weight * rho[:, None]
        latents, rewards, terminations = [], [], []
        consistency = torch.zeros_like(batch.weight[:, 0])
        for t in range(steps):
            latents.append(latent)
            step = model.step(latent, batch.action[:, t], embedded, gates)
            latent = step.latent
            # equation 3, first term
            missed = (latent - encoded[:, t + 1]).square().mean(-1)
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
        facts = {
            "consistency_loss": consistency_loss.detach(),
            "reward_loss": reward_loss.detach(),
            "q_loss": q_loss.detach(),
            "termination_loss": termination_loss.detach(),
            "value": mean_by_task(targets.transpose(0, 1), batch.weight.transpose(0, 1)),
        }
        losses = (
            coefficient.consistency * consistency_loss
            + coefficient.reward * reward_loss
            + coefficient.value * q_loss
            + coefficient.termination * termination_loss
        )
        padded = torch.where(batch.weight > 0, targets, torch.nan)
        return ModelTerms(losses, facts, first, padded.flatten(1).T)

    def _encoded(self, batch: Sequences, embedded: torch.Tensor, times: slice) -> torch.Tensor:
        """Latents of the observations at `times`, [K, t, B, d]."""
        part = {name: (values[:, times], rows) for name, (values, rows) in batch.seen.items()}
        samples = batch.weight.shape[2]
        flat = {name: (values.flatten(1, 2), rows) for name, (values, rows) in part.items()}
        return self.model.encode(flat, batch.task, embedded).unflatten(1, (-1, samples))

    def _improved(self, batch: Sequences, latent: torch.Tensor, normal: torch.Tensor | None) -> PolicyTerms:
        model, coefficient = self.model, self.config.losses.cloning
        embedded = model.embed(batch.task).detach()
        gaussian, logits = model.prior(latent, batch.task, embedded)
        loss = torch.zeros_like(batch.weight[:, 0])
        entropy = torch.zeros_like(loss)
        continuous, discrete = batch.continuous_rows, batch.discrete_rows
        if normal is not None:
            action, log_probability = gaussian.sample(normal)
            zero = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
            coded = model.coded(action, zero, batch.discrete)[continuous]
            value = self._present_q(latent[continuous], coded, embedded[continuous]).mean(0)
            each = continuous_policy_loss(
                value, log_probability[continuous], batch.temperature[continuous], batch.scale[continuous]
            )
            loss = loss.index_copy(0, continuous, each)
            entropy = entropy.index_copy(0, continuous, -log_probability[continuous].detach())
        if len(discrete):
            with torch.no_grad():
                values = self._of_all_actions(self._present_q, latent[discrete], embedded[discrete]).mean(0)
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
        plain = total = mean_by_task(loss, weight)
        if coefficient > 0 and batch.planned is not None:
            total = total + coefficient * mean_by_task(
                self._cloning(batch, latent, embedded, gaussian, logits), weight
            )
        return PolicyTerms(total, plain.detach(), mean_by_task(entropy, weight))

    def _cloning(
        self,
        batch: Sequences,
        latent: torch.Tensor,
        embedded: torch.Tensor,
        gaussian: TanhGaussian,
        logits: torch.Tensor,
    ) -> torch.Tensor:
        """How far the policy is from what was planned, [K, B], weighted by softmax(Q) within a task: squared
        error of a continuous action, cross entropy of a discrete one.
        """
        assert batch.planned is not None
        target = batch.planned[:, 0]
        there = torch.isfinite(target).all(-1)
        target = torch.nan_to_num(target)
        width = self.model.layout.continuous_size
        rows = batch.discrete_rows
        with torch.no_grad():
            value = self._present_q(latent, target, embedded).mean(0)
            if len(rows):
                every = self._of_all_actions(self._present_q, latent[rows], embedded[rows]).mean(0)
                value = value.index_copy(0, rows, (target[rows][..., width:] * every).sum(-1))
            share = cloning_weight(value, there, batch.scale)
        each = (gaussian.mode() - target[..., :width]).square().sum(-1)
        if len(rows):
            logs = self.model.log_policy(logits[rows], batch.task[rows])
            logs = logs.masked_fill(logs == -torch.inf, 0.0)
            each = each.index_copy(0, rows, -(target[rows][..., width:] * logs).sum(-1))
        return share * each

    def _targets(
        self,
        batch: Sequences,
        encoded: torch.Tensor,
        embedded: torch.Tensor,
        pair: torch.Tensor,
        normal: torch.Tensor | None,
    ) -> torch.Tensor:
        """[K, T, B], the returns that Q functions are fitted to."""
        reward, terminated, weight = (
            values.transpose(0, 1) for values in (batch.reward, batch.terminated, batch.weight)
        )
        last = bootstrap_index(weight)
        index = last[:, None, :, None].expand(-1, 1, -1, encoded.shape[-1])
        latent = encoded.gather(1, index).squeeze(1)
        gaussian, logits = self.model.prior(latent, batch.task, embedded)
        value = torch.zeros_like(batch.weight[:, 0])
        rows = batch.continuous_rows
        if normal is not None:
            action = gaussian.action(normal)
            zero = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
            coded = self.model.coded(action, zero, batch.discrete)[rows]
            values = self._target_q(latent[rows], coded, embedded[rows])
            value = value.index_copy(0, rows, values[pair].amin(0))
        rows = batch.discrete_rows
        if len(rows):
            # the exact expectation over actions (Christodoulou 2019, equation 10, without entropy)
            probability = self.model.log_policy(logits[rows], batch.task[rows]).exp()
            values = self._of_all_actions(self._target_q, latent[rows], embedded[rows])
            value = value.index_copy(0, rows, (probability * values[pair].amin(0)).sum(-1))
        targets = n_step_targets(reward, terminated, weight, value, batch.discount)
        return targets.transpose(0, 1)

    def _target_q(self, latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """Values of the target members, [n, k, B]."""
        body = self.target_body(self.model.q_inputs(latent, action, embedded))
        return self.model.values(self.target_out(body))

    def _present_q(self, latent: torch.Tensor, action: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """Values of the members, [n, k, B]."""
        return self.model.values(self.model.q_logits(latent, action, embedded))

    def _of_all_actions(self, q: QFunctions, latent: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """`q` at every discrete action, [n, k, B, actions]; latent [k, B, d]."""
        layout, samples = self.model.layout, latent.shape[1]
        choices = torch.eye(layout.discrete_size, device=latent.device)
        choices = nn.functional.pad(choices, (layout.continuous_size, 0))
        action = choices.repeat(samples, 1).expand(len(latent), -1, -1)
        values = q(latent.repeat_interleave(layout.discrete_size, dim=1), action, embedded)
        return values.unflatten(2, (samples, layout.discrete_size))

    def _cross_entropy(self, logits: torch.Tensor, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Against the two-hot of `value`, in symlog units: [..., K, T, B, bins] -> [..., K]."""
        each = self.model.number.losses(logits, value)
        return (each * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1e-8)


def q_ranges(targets: torch.Tensor) -> torch.Tensor:
    """[K], the distance of two quantiles of targets [n, K]; NaN counts as nothing."""
    low, high = torch.nanquantile(targets, torch.tensor(RANGE, device=targets.device), dim=0)
    return high - low


def clipped_shares(targets: torch.Tensor, value_range: float) -> torch.Tensor:
    """[K], the share of targets [n, K] beyond +-`value_range` in symlog units; NaN counts as nothing."""
    there = torch.isfinite(targets).sum(0).clamp_min(1)
    return (targets.abs() > math.expm1(value_range)).sum(0) / there


def named_losses(latest: Mapping[str, torch.Tensor], names: list[str]) -> dict[str, float]:
    """name/task -> number."""
    return {
        f"{name}/{task}": value
        for name, values in latest.items()
        for task, value in zip(names, values.tolist(), strict=True)
    }
