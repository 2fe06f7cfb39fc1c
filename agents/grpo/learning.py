"""Optimiser steps on the decisions of a round."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.errors import DivergenceError
from mtrl.nn import select_rows
from mtrl.reducer import Like, Reducer, Sums

from .config import GRPOConfig
from .losses import clipped_objective, entropy_penalty, reference_divergence, weighted_sums
from .networks import ActionDistribution, StepBatch
from .student_actor import Actor
from .surgery import MinibatchSurgery, summed_gradients
from .table import RoundTable

FACTS = ("objective", "entropy", "divergence", "clipped", "count")
"""Sums over a task's decisions in a minibatch."""
SMALLEST_STD = 1e-3


class GroupLearner:
    """The actor's optimiser, the reference, and the mean entropies of earlier rounds."""

    def __init__(
        self, config: GRPOConfig, actor: Actor, tasks: int, seed: int, reference: Actor | None
    ) -> None:
        """Without `reference` the actor as it is at the first round is one."""
        self.steps = 0
        """Optimiser steps."""
        self._config, self._actor, self._tasks = config, actor, tasks
        self._reference = reference
        self._named = dict(actor.named_parameters())
        weights = [value for name, value in self._named.items() if name != "log_std"]
        deviations = {"params": [actor.log_std], "lr": config.std_learning_rate}
        groups: list[dict[str, Any]] = [{"params": weights}, deviations]
        self._optimizer = torch.optim.Adam(groups, lr=config.learning_rate, eps=1e-5)
        self._surgery: MinibatchSurgery | None = None
        if not config.gradients.plain:
            self._surgery = MinibatchSurgery(
                actor, config.gradients, tasks, seed, signed="the objective of GRPO"
            )
        bins = config.regularisation.time_bins
        self._entropy = np.zeros((tasks, bins))
        """[K, bins], mean over earlier rounds."""
        self._rounds = np.zeros((tasks, bins))
        """[K, bins], in how many of them the bin held a decision."""

    def round(
        self,
        table: RoundTable,
        draws: np.random.Generator,
        reducer: Reducer,
        floors: npt.NDArray[np.float64],
        on_change: Callable[[npt.NDArray[np.float64]], None] | None = None,
    ) -> dict[str, npt.NDArray[np.float64] | float]:
        """All steps of a round. `floors` [K] of the deviations. `on_change` gets the change of every task's
        mean objective by each step, [K], NaN for an absent task. Returns means over the round: facts [K] by
        name, and "gradient_norm".
        """
        config = self._config
        if config.regularisation.kl and self._reference is None:
            self._reference = copy.deepcopy(self._actor).requires_grad_(False).eval()
        totals = np.zeros((len(FACTS), self._tasks))
        entropies = np.zeros((2, *self._entropy.shape))
        norms = list[float]()
        surgery: dict[str, list[float]] = {}
        for epoch in range(config.epochs):
            for batch in table.minibatches(config.minibatches, draws):
                sums, norm, metrics = self._step(table, batch, reducer, floors)
                totals += np.stack([sums[name].numpy() for name in FACTS])
                if epoch == 0:
                    entropies += sums["bins"].numpy()
                if norm is not None:
                    norms.append(norm)
                for name, value in metrics.items():
                    surgery.setdefault(name, []).append(value)
                if on_change is not None and norm is not None:
                    on_change(self._change(table, batch, sums, reducer))
        self._follow_entropy(entropies)
        count = np.where(totals[-1] > 0, totals[-1], np.nan)
        found: dict[str, npt.NDArray[np.float64] | float] = {
            name: total / count for name, total in zip(FACTS[:-1], totals, strict=False)
        }
        found["gradient_norm"] = float(np.mean(norms)) if norms else 0.0
        return found | {name: float(np.mean(values)) for name, values in surgery.items()}

    def _step(
        self,
        table: RoundTable,
        batch: StepBatch | None,
        reducer: Reducer,
        floors: npt.NDArray[np.float64],
    ) -> tuple[Sums, float | None, dict[str, float]]:
        """One optimiser step; the sums of FACTS [K] and of entropies by time [2, K, bins], the gradient's
        norm (None where no rank has a decision), and the metrics of surgery.
        """
        gradients = {name: (value.shape, value.dtype) for name, value in self._named.items()}
        metrics: dict[str, float] = {}
        if self._surgery is None:
            sums = dict(
                reducer.sums(
                    lambda: self._sums(table, batch, differentiate=True), {**gradients, **self._like}
                )
            )
            if not float(sums["count"].sum()):
                return sums, None, metrics
            total = float(sums["count"].sum())
            # L = -(1 / sum_i T_i) sum_i sum_t objective  (DAPO, equation 8)
            found = {name: sums[name] / -total for name in self._named}
        else:
            sums = dict(reducer.sums(lambda: self._sums(table, batch, differentiate=False), self._like))
            if not float(sums["count"].sum()):
                return sums, None, metrics
            found, measured = self._surgery.gradients(
                batch, lambda made: -self._objective(table, made)[0], sums["count"], reducer
            )
            metrics = {f"gradients/{name}": value for name, value in measured.items()}
        for name, value in self._named.items():
            value.grad = found.get(name)
        limit = self._config.gradient_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(list(self._named.values()), limit))
        if not math.isfinite(norm):
            raise DivergenceError("GRPO", self.steps + 1, f"gradient norm {norm}")
        self._optimizer.step()
        self.steps += 1
        self._bound_deviations(floors)
        return sums, norm, metrics

    @property
    def _like(self) -> Like:
        shape = (self._tasks,)
        facts: Like = dict.fromkeys(FACTS, (shape, torch.float64))
        return {**facts, "bins": ((2, *self._entropy.shape), torch.float64)}

    def _sums(self, table: RoundTable, batch: StepBatch | None, *, differentiate: bool) -> Sums:
        """This rank's sums, with the gradient of the summed objective where it is needed."""
        if batch is None:
            zeros = {name: torch.zeros_like(value) for name, value in self._named.items() if differentiate}
            return zeros | {
                name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in self._like.items()
            }
        with torch.set_grad_enabled(differentiate):
            objective, facts = self._objective(table, batch)
        found = summed_gradients(objective.sum(), self._named) if differentiate else dict[str, Tensor]()
        for name, values in facts.items():
            found[name] = self._task_sums(weighted_sums(values.detach(), batch.weight), batch.task).double()
        bins = self._bins(batch)
        place = (batch.task[:, None] * self._entropy.shape[1] + bins).flatten()
        flat = torch.zeros(2, self._entropy.size, dtype=torch.float64)
        weight = batch.weight.double().flatten()
        flat[0].index_add_(0, place, facts["entropy"].detach().double().flatten() * weight)
        flat[1].index_add_(0, place, weight)
        found["bins"] = flat.unflatten(1, self._entropy.shape)
        return found

    def _objective(self, table: RoundTable, batch: StepBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective summed over each row's decisions, [rows]; and the FACTS by decision."""
        config, fields, extra = self._config, batch.fields, self._config.regularisation
        rho = config.network.correlation
        log_probability, found = path_log_probability(self._actor, table, batch, rho)
        before = fields["log_probability"]
        clipped = clipped_objective(
            log_probability, before, fields["advantage"], config.clip_low, config.clip_high
        )
        entropy = found.entropy()
        objective, divergence = clipped, torch.zeros_like(clipped)
        if extra.kl:
            assert self._reference is not None, "`round` makes it"
            with torch.no_grad():
                reference, _ = path_log_probability(self._reference, table, batch, rho)
            divergence = reference_divergence(log_probability, reference)
            objective = objective - extra.kl * divergence
        if extra.entropy:
            objective = objective + extra.entropy * entropy
        if extra.smoothing:
            known = np.where(self._rounds > 0, self._entropy, np.nan)
            mean = torch.from_numpy(known).float()[batch.task[:, None], self._bins(batch)]
            objective = objective - extra.smoothing * entropy_penalty(entropy, mean, extra.band)
        with torch.no_grad():
            ratio = (log_probability - before).exp()
            outside = (ratio < 1.0 - config.clip_low) | (ratio > 1.0 + config.clip_high)
        facts = {
            "objective": clipped,
            "entropy": entropy,
            "divergence": divergence,
            "clipped": outside.float(),
            "count": torch.ones_like(clipped),
        }
        return weighted_sums(objective, batch.weight), facts

    @torch.no_grad()
    def _change(
        self, table: RoundTable, batch: StepBatch | None, sums: Sums, reducer: Reducer
    ) -> npt.NDArray[np.float64]:
        """J_new - J_old [K] of the mean objective of a minibatch, over the step that it made."""

        def made() -> Sums:
            if batch is None:
                return {}
            _, facts = self._objective(table, batch)
            each = weighted_sums(facts["objective"], batch.weight)
            return {"objective": self._task_sums(each, batch.task).double()}

        after = reducer.sums(made, {"objective": ((self._tasks,), torch.float64)})["objective"]
        count = sums["count"]
        change = (after - sums["objective"]) / count.clamp_min(1.0)
        return np.where(count.numpy() > 0, change.numpy(), np.nan)

    def _task_sums(self, values: Tensor, task: Tensor) -> Tensor:
        """[rows] or [rows, B] -> [K], 0 for absent tasks."""
        rows = values if values.dim() == 1 else values.sum(1)
        return torch.zeros(self._tasks, dtype=rows.dtype).index_add(0, task, rows)

    def _bins(self, batch: StepBatch) -> Tensor:
        """[K, B], part of the episode."""
        bins = self._entropy.shape[1]
        return (batch.fields["time"] * bins).long().clamp_max(bins - 1)

    @torch.no_grad()
    def _bound_deviations(self, floors: npt.NDArray[np.float64]) -> None:
        lowest = torch.from_numpy(np.maximum(floors, SMALLEST_STD)).float().log()[:, None]
        ceiling = math.log(self._config.network.std_ceiling)
        self._actor.log_std.copy_(self._actor.log_std.clamp_max(ceiling).maximum(lowest))

    def _follow_entropy(self, sums: npt.NDArray[np.float64]) -> None:
        there = sums[1] > 0
        self._rounds[there] += 1.0
        mean = sums[0][there] / sums[1][there]
        self._entropy[there] += (mean - self._entropy[there]) / self._rounds[there]

    def task_cosines(self) -> npt.NDArray[np.float64] | None:
        """[K, K], of the tasks' gradients since the last call."""
        return None if self._surgery is None else self._surgery.take_cosines()

    def shared_state(self) -> dict[str, Any]:
        """Optimiser, surgery, reference, entropies."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "surgery": None if self._surgery is None else self._surgery.state_dict(),
            "reference": None if self._reference is None else dict(self._reference.state_dict()),
            "entropy": self._entropy.copy(),
            "rounds": self._rounds.copy(),
            "steps": self.steps,
        }

    def restore(self, shared: Mapping[str, Any]) -> None:
        """Restores `shared_state`, after the actor's weights."""
        self._optimizer.load_state_dict(copy.deepcopy(shared["optimizer"]))
        if self._surgery is not None and shared["surgery"] is not None:
            self._surgery.load_state_dict(shared["surgery"])
        if shared["reference"] is not None:
            self._reference = copy.deepcopy(self._actor).requires_grad_(False).eval()
            self._reference.load_state_dict(shared["reference"])
        self._entropy[:], self._rounds[:] = shared["entropy"], shared["rounds"]
        self.steps = int(shared["steps"])


def path_log_probability(
    actor: Actor, table: RoundTable, batch: StepBatch, correlation: float
) -> tuple[Tensor, ActionDistribution]:
    """[K, B], of the drawn actions given the past of their episode; and the distributions without it."""
    found, fields = actor.distribution(batch), batch.fields
    if not correlation or not len(found.continuous):
        return found.log_probability(fields["drawn"], fields["index"]), found
    earlier = table.before(batch)
    mean = actor.distribution(earlier).mean
    under_way = (select_rows(fields["before"], found.continuous) >= 0).float()[..., None]
    drawn = select_rows(earlier.fields["drawn"], found.continuous)
    # u_t | past ~ N(mean_t + rho (u_{t-1} - mean_{t-1}), (1 - rho^2) std^2)
    shift = correlation * (drawn - mean) * under_way
    spread = torch.where(under_way > 0, math.sqrt(1.0 - correlation**2), 1.0)
    return found.log_probability(fields["drawn"], fields["index"], shift, spread), found


def named_facts(
    found: Mapping[str, npt.NDArray[np.float64] | float], names: Sequence[str]
) -> dict[str, float]:
    """Facts by task under "name/task", without those of absent tasks; others as they are."""
    flat: dict[str, float] = {}
    for name, values in found.items():
        if isinstance(values, float):
            flat[name] = values
            continue
        pairs = zip(names, values.tolist(), strict=True)
        flat |= {f"{name}/{task}": value for task, value in pairs if not math.isnan(value)}
    return flat
