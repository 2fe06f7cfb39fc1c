"""Experts that a gate chooses once per task: shared ones always act, routed ones by the gate's top k."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from .config import RoutedExpertsConfig
from .layers import BatchedLinear, TaskTable, fill_he_uniform


class GateUse(NamedTuple):
    """How K tasks use E experts, [K, E] each, means over samples."""

    probability: torch.Tensor
    """Softmax over all experts."""
    choice: torch.Tensor
    """Share of the choices, sums to 1."""
    weight: torch.Tensor
    """Weight in the output, sums to 1."""


@dataclass(frozen=True)
class TaskGates:
    """The gate's choice for K tasks, made once and used for every step of a plan or an unrolled sequence."""

    task_index: torch.Tensor
    """[K]"""
    logits: torch.Tensor
    """[K, E], divided by the temperature, noise included."""
    chosen: torch.Tensor
    """[K, k], indices of the experts; with a state gate each sample chooses, unless they are forced."""
    weights: torch.Tensor
    """[K, k], sum to 1, differentiable in the gate."""
    layers: tuple[tuple[torch.Tensor, ...], ...]
    """Weights of the chosen and the shared experts, gathered: per layer weight [K, S, in, out], bias, scale
    and shift [K, S, 1, out]."""

    forced: bool = False
    """Whether `chosen` was given."""
    samples: list[GateUse] = field(default_factory=list)
    """With a state gate: of every call of the layer so far."""

    def probabilities(self) -> torch.Tensor:
        """[K, E], softmax of the task's logits over all experts."""
        return torch.softmax(self.logits, dim=-1)

    def use(self) -> GateUse:
        """Probability, choice and weight of every expert; with a state gate, of the samples so far."""
        if self.samples:
            return GateUse(*(torch.stack(parts).mean(0) for parts in zip(*self.samples, strict=True)))
        empty = torch.zeros_like(self.logits)
        choice = empty.scatter(1, self.chosen, 1.0 / self.chosen.shape[1])
        return GateUse(self.probabilities(), choice, empty.scatter(1, self.chosen, self.weights))


class RoutedExperts(nn.Module):
    """y = sum_s shared_s(x) + sum_(i in top-k) g_i routed_i(x), g = softmax over all E, renormalised over k.

    An expert is `depth` times Linear, LayerNorm, SiLU. With a gate that sees the task alone (Switch,
    arXiv 2101.03961, routes per token), all samples of a task pass the same experts: these are gathered once
    per call of `gates` and applied in one batched product.
    """

    bias: torch.Tensor
    load: torch.Tensor
    updates: torch.Tensor

    def __init__(
        self,
        config: RoutedExpertsConfig,
        tasks: int,
        inputs: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """`inputs` is the length of x, `tasks` the number of all tasks of the set."""
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, config.width
        count = config.routed + config.shared
        # small logits: the first assignment of experts is not locked in before anything is learned
        small = 0.06 * config.temperature
        self.by_task = TaskTable((), tasks, config.routed, bound=small, generator=generator)
        self.by_state: BatchedLinear | None = None
        if config.state_gate:
            self.by_state = BatchedLinear((), inputs, config.routed, bound=1e-2, generator=generator)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterList()
        for _ in range(config.depth):
            weight = torch.empty(count, inputs, config.width)
            fill_he_uniform(weight, inputs, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, config.width)))
            self.scales.append(nn.Parameter(torch.ones(count, 1, config.width)))
            self.shifts.append(nn.Parameter(torch.zeros(count, 1, config.width)))
            inputs = config.width
        self.register_buffer("bias", torch.zeros(config.routed))
        self.register_buffer("load", torch.full((config.routed,), 1.0 / config.routed))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def gates(
        self,
        task_index: torch.Tensor,
        *,
        explore: torch.Generator | None = None,
        chosen: torch.Tensor | None = None,
    ) -> TaskGates:
        """The choice for tasks [K]. `explore` adds the gate's noise, drawn from it; `chosen` [K, k] forces
        experts, for diagnosis.
        """
        config = self.config
        logits = self.by_task(task_index).squeeze(-2) / config.temperature
        if explore is not None and config.noise > 0:
            share = max(0.0, 1.0 - float(self.updates) / config.noise_updates)
            noise = torch.randn(logits.shape, generator=explore, device=logits.device)
            logits = logits + config.noise * share * noise
        probabilities = torch.softmax(logits, dim=-1)
        forced = chosen is not None
        if chosen is None:
            chosen = (probabilities.detach() + self.bias).topk(config.chosen, dim=-1).indices
        # the softmax over all, renormalised, without its 0 / 0 where the chosen ones are far below the rest
        weights = torch.softmax(logits.gather(-1, chosen), dim=-1)
        used = chosen
        if config.state_gate:
            used = torch.arange(config.routed, device=chosen.device).expand(len(task_index), -1)
        if config.shared:
            always = torch.arange(config.routed, config.routed + config.shared, device=chosen.device)
            used = torch.cat([used, always.expand(len(task_index), -1)], dim=-1)
        rows, shape = used.flatten(), used.shape
        groups = (self.weights, self.biases, self.scales, self.shifts)
        layers = tuple(
            tuple(group[depth].index_select(0, rows).unflatten(0, shape) for group in groups)
            for depth in range(config.depth)
        )
        return TaskGates(task_index, logits, chosen, weights, layers, forced)

    def forward(self, inputs: torch.Tensor, gates: TaskGates) -> torch.Tensor:
        """x [K, B, inputs] -> [K, B, width]"""
        config, width = self.config, self.outputs
        tasks, samples = inputs.shape[:2]
        used = gates.layers[0][0].shape[1]
        hidden = inputs[:, None].expand(-1, used, -1, -1).reshape(tasks * used, samples, -1)
        for weight, bias, scale, shift in gates.layers:
            hidden = torch.baddbmm(bias.flatten(0, 1), hidden, weight.flatten(0, 1))
            hidden = torch.layer_norm(hidden, (width,))
            hidden = nn.functional.silu(hidden * scale.flatten(0, 1) + shift.flatten(0, 1))
        hidden = hidden.view(tasks, used, samples, width)
        if self.by_state is None:
            shares = gates.weights[:, :, None, None]
        else:
            shares = self._by_sample(inputs, gates).permute(0, 2, 1)[..., None]
        routed = used - config.shared
        mixed = (hidden[:, :routed] * shares).sum(1)
        return mixed + hidden[:, routed:].sum(1) if config.shared else mixed

    def _by_sample(self, inputs: torch.Tensor, gates: TaskGates) -> torch.Tensor:
        """Weights of all experts for every sample, [K, B, E], 0 where not chosen."""
        assert self.by_state is not None, "a state gate"
        logits = gates.logits[:, None] + self.by_state(inputs.detach())
        probabilities = torch.softmax(logits, dim=-1)
        chosen = (probabilities.detach() + self.bias).topk(self.config.chosen, dim=-1).indices
        if gates.forced:
            chosen = gates.chosen[:, None].expand_as(chosen)
        empty = torch.zeros_like(probabilities)
        weights = empty.scatter(-1, chosen, torch.softmax(logits.gather(-1, chosen), dim=-1))
        choices = empty.scatter(-1, chosen, 1.0 / self.config.chosen)
        gates.samples.append(GateUse(probabilities.mean(1), choices.mean(1), weights.mean(1)))
        return weights

    def balance_loss(self, gates: TaskGates) -> torch.Tensor | None:
        """E sum_i f_i p_i times its rate: f the share of choices, p the mean probability; None where the
        balance is not a loss.
        """
        if self.config.balance != "loss" or self.config.balance_rate == 0:
            return None
        use = gates.use()
        share = use.choice.detach().mean(0)
        return self.config.balance_rate * self.config.routed * (share * use.probability.mean(0)).sum()

    @torch.no_grad()
    def after_update(self, gates: TaskGates) -> None:
        """Counts the update, averages the load, and moves the selection bias against it."""
        self.updates += 1
        if self.config.balance == "bias":
            self.load.lerp_(gates.use().choice.mean(0), 0.05)
            self.bias += self.config.balance_rate * torch.sign(self.load.mean() - self.load)
