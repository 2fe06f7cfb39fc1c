"""Measurements inside the model: what its experts do, how far it sees, what planning adds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtrl.nn import TaskGates

from .networks import WorldModel
from .planning import Planner, Search
from .sequences import Sequences

PLANNED = 8
"""Latents of a task that are planned from to compare planner and prior."""


@torch.no_grad()
def measure(model: WorldModel, batch: Sequences, names: Sequence[str], seed: int) -> dict[str, float]:
    """Every measurement of this file on one batch, by metric name; `names` are those of the batch's tasks."""
    embedded = model.embed(batch.task)
    gates = model.experts.gates(batch.task)
    latents = encoded(model, batch, embedded)
    real = batch.weight[:, 0] > 0
    found = {"effective_rank": effective_rank(latents[:, 0][real])}
    errors = latent_errors(model, batch, latents, embedded, gates)
    for t, row in enumerate(errors, 1):
        found |= {f"latent_error_{t}/{name}": float(v) for name, v in zip(names, row, strict=True)}
    hidden = model.q_body(model.q_inputs(latents[:, 0], batch.action[:, 0], embedded))
    found["dormant_units"] = dormant_share(hidden)
    if model.experts.config.routed > 1:
        found |= gate_metrics(gates, names)
    for label, ratios in gate_dependence(model, batch, latents, embedded, errors[-1]).items():
        found |= {f"{label}/{name}": float(v) for name, v in zip(names, ratios, strict=True)}
    gain = planning_gain(model, batch, latents[:, 0], embedded, seed)
    return found | {f"planning_gain/{name}": float(v) for name, v in zip(names, gain, strict=True)}


def measured_count(model: WorldModel, tasks: int, steps: int) -> int:
    """How many numbers `measure` finds."""
    experts = model.experts.config.routed
    gates = (1 + tasks + experts * tasks) if experts > 1 else 0
    return 2 + (steps + 1) * tasks + gates + len(other_gates(model, tasks)) * tasks


def encoded(model: WorldModel, batch: Sequences, embedded: torch.Tensor) -> torch.Tensor:
    """Latents of all observations, [K, T + 1, B, d]."""
    flat = {name: (values.flatten(1, 2), rows) for name, (values, rows) in batch.seen.items()}
    return model.encode(flat, batch.task, embedded).unflatten(1, (-1, batch.weight.shape[2]))


def gate_metrics(gates: TaskGates, names: Sequence[str]) -> dict[str, float]:
    """Entropy of the gate by task and of its mean over tasks, over ln E; each task's use of each expert."""
    probabilities, _, weight = gates.use()
    full = float(np.log(probabilities.shape[1]))

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.clamp_min(1e-12).log()).sum(-1) / full

    found = {"gate_entropy_marginal": float(entropy(probabilities.mean(0)))}
    for k, name in enumerate(names):
        found[f"gate_entropy/{name}"] = float(entropy(probabilities[k]))
        found |= {f"expert_{i}_use/{name}": float(share) for i, share in enumerate(weight[k])}
    return found


def latent_errors(
    model: WorldModel,
    batch: Sequences,
    latents: torch.Tensor,
    embedded: torch.Tensor,
    gates: TaskGates,
) -> torch.Tensor:
    """[T, K], mean squared error of the latent unrolled over t steps against the encoder's."""
    state, found = latents[:, 0], []
    for t in range(batch.weight.shape[1]):
        state = model.step(state, batch.action[:, t], embedded, gates).latent
        missed = (state - latents[:, t + 1]).square().mean(-1)
        weight = batch.weight[:, t]
        found.append((missed * weight).sum(-1) / weight.sum(-1).clamp_min(1e-8))
    return torch.stack(found)


def other_gates(model: WorldModel, tasks: int) -> tuple[str, ...]:
    """What `gate_dependence` can try with so many tasks and experts."""
    config = model.experts.config
    exchanged = ("exchanged_gate_error",) if tasks > 1 and config.routed > 1 else ()
    return exchanged + (("unused_expert_error",) if config.routed > config.chosen else ())


def gate_dependence(
    model: WorldModel,
    batch: Sequences,
    latents: torch.Tensor,
    embedded: torch.Tensor,
    error: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The router's proof, [K] each: the last latent error with the gate of another task, and with experts
    that the task does not use, over `error`, which it has with its own; 1 where the gate does not matter.
    """
    experts, task = model.experts, batch.task
    own = experts.gates(task)
    unused = own.probabilities().scatter(1, own.chosen, -torch.inf)
    count = min(experts.config.chosen, experts.config.routed - experts.config.chosen)
    others = {
        "exchanged_gate_error": lambda: experts.gates(task.roll(1)),
        "unused_expert_error": lambda: experts.gates(task, chosen=unused.topk(count, dim=-1).indices),
    }
    return {
        name: latent_errors(model, batch, latents, embedded, others[name]())[-1] / error.clamp_min(1e-12)
        for name in other_gates(model, len(task))
    }


def planning_gain(
    model: WorldModel,
    batch: Sequences,
    latent: torch.Tensor,
    embedded: torch.Tensor,
    seed: int,
) -> torch.Tensor:
    """[K], the model's return of the plan minus that of the prior's own actions, in units of the Q scale."""
    planner, settings = Planner(model), model.config.planning
    latent = latent[:, :PLANNED]
    gain = torch.zeros(len(batch.task), device=latent.device)
    draws = np.random.default_rng(seed)
    for kind in (False, True):
        rows = (batch.discrete == kind).nonzero().flatten()
        if not len(rows):
            continue
        task = batch.task[rows]
        search = Search(
            task, embedded[rows], model.experts.gates(task), batch.discount[rows], batch.scale[rows]
        )
        shape = (len(rows), latent.shape[1], settings.iterations, settings.samples, settings.horizon)
        if kind:
            plan = planner.discrete(latent[rows], search, draws.random(shape, dtype=np.float32)).argmax(-1)
            plans = torch.nn.functional.one_hot(plan, model.layout.discrete_size).to(latent.dtype)
        else:
            width = model.layout.continuous_size
            noise = draws.standard_normal(
                (*shape[:2], settings.iterations + 1, *shape[3:], width), dtype=np.float32
            )
            warm = latent.new_zeros(*shape[:2], settings.horizon, width)
            plans, _ = planner.continuous(latent[rows], search, warm, noise)
        both = torch.stack([plans, planner.prior_plan(latent[rows], search)], dim=2)
        value = planner.returns(latent[rows], search, planner.coded(both, discrete=kind))
        gain[rows] = (value[..., 0] - value[..., 1]).mean(1) / batch.scale[rows, 0]
    return gain


def effective_rank(rows: torch.Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred rows [n, d] (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(rows - rows.mean(0))
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


def dormant_share(hidden: torch.Tensor, threshold: float = 0.025) -> float:
    """Share of units [..., K, B, h] whose mean absolute activation is at most `threshold` of their layer's
    mean (Sokar et al. 2023, definition 3.1).
    """
    sizes = hidden.abs().mean((-3, -2))
    return float((sizes <= threshold * sizes.mean(-1, keepdim=True)).float().mean())
