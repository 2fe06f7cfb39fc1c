"""From K task losses to one gradient: rows, weights, combination."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError, UnsupportedError

from .choice import MeasuredChoice
from .jacobian import TaskJacobian
from .rows import TaskRows, cosines
from .sparse import SparseUpdate
from .weightings import Evidence, make_weighting


@dataclass(frozen=True)
class SurgeryConfig:
    """How task gradients are combined; configs/gradients/<method>.yaml mirrors it."""

    method: str = "sum"
    """Name of a weighting: sum, pcgrad, cagrad, mgda, upgrad, nash_mtl, famo, ..."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of that method, by the names of its config."""
    every: int = 1
    """Weights are solved anew every so many steps, at least 1; between them a step costs one plain
    backward."""
    smoothing: float = 0.0
    """Share of the old weights that is kept, in [0, 1): CR-MOGM (Zhou et al. 2022) takes 0.9."""
    weigh_owned: bool = False
    """Whether parameters that one task owns, such as heads, take its weight too rather than 1."""
    trained_share: float = 1.0
    """Share of every weight matrix that is trained at all, in (0, 1]: sparse training."""
    memory_mb: float = 1024.0
    """Largest K x P matrix of rows that is kept; beyond it the Gramian is streamed and a second pass
    follows."""
    way: str = "measure"
    """"backward" (one joint backward), "loop" (one per task), or "measure": the faster, found in the first
    steps."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OutOfRangeError("every", self.every, "an integer of at least 1")
        if not 0 <= self.smoothing < 1:
            raise OutOfRangeError("smoothing", self.smoothing, "a number from 0 to below 1")
        if not 0 < self.trained_share <= 1:
            raise OutOfRangeError("trained_share", self.trained_share, "a number above 0 and at most 1")
        if not self.memory_mb > 0:
            raise OutOfRangeError("memory_mb", self.memory_mb, "a number above 0")
        if self.way not in ("measure", "backward", "loop"):
            raise ConfigError(f"way={self.way!r}; expected measure, backward or loop")


@dataclass(frozen=True)
class Combined:
    """One step's update."""

    gradients: dict[str, torch.Tensor]
    """Parameter name -> gradient. Hand it to the optimiser, or add what stays outside first."""
    weights: torch.Tensor
    """[K] float64."""
    metrics: dict[str, float]
    """See METRICS."""


METRICS = {
    "cosine_mean": "mean cosine between the gradients of two tasks",
    "cosine_min": "smallest cosine between the gradients of two tasks",
    "conflict_share": "share of task pairs whose gradients point against each other, 0 to 1",
    "weight_min": "smallest weight of a task",
    "weight_max": "largest weight of a task",
    "deficient": "1 where the Gramian lacked full rank and the solution was regularised",
}
"""Name -> meaning; the first three only at steps that solve for weights."""


class GradientSurgery:
    """Turns the losses of K tasks into one gradient by a weighting of their gradients.

        surgery = GradientSurgery(critic, SurgeryConfig(method="pcgrad"), tasks=10)
        combined = surgery.step(batch.task_losses(errors))
        surgery.assign(combined.gradients)
        optimiser.step()

    Data-parallel ranks take the two halves apart: `rows` (of summed losses), all tensors of `TaskRows.sums`
    added over ranks, `TaskRows.divide` by the added counts, then `combine`.
    """

    def __init__(
        self,
        parameters: nn.Module | Mapping[str, nn.Parameter],
        config: SurgeryConfig,
        tasks: int,
        seed: int = 0,
        *,
        signed: str = "",
    ) -> None:
        """`signed` names losses that may be negative ("the actor's loss"), which some methods refuse."""
        self.config = config
        self.tasks = tasks
        self.weighting = make_weighting(config.method, tasks, seed, config.options)
        if signed and self.weighting.needs_positive_losses:
            raise UnsupportedError(
                f"gradient method {config.method!r} on {signed}: {self.weighting.needs_positive_losses}, and "
                f"{signed} may be negative; use it on the critic, or take a method that reads gradients alone"
            )
        self.jacobian = TaskJacobian(parameters)
        self.size = sum(parameter.numel() for parameter in self.jacobian.parameters)
        named = dict(zip(self.jacobian.names, self.jacobian.parameters, strict=True))
        self._sparse = SparseUpdate(named, config.trained_share, seed) if config.trained_share < 1 else None
        self.streamed = self._rows_mb() > config.memory_mb
        if self.streamed and (self._sparse or self.weighting.needs_rows or self.weighting.needs_persistence):
            raise UnsupportedError(
                f"gradient method {config.method!r} with trained_share={config.trained_share} needs all "
                f"rows, {self._rows_mb():.0f} MB for {tasks} tasks; raise memory_mb={config.memory_mb:g}"
            )
        self.choice = MeasuredChoice(
            ("backward", "loop"), chosen="" if config.way == "measure" else config.way
        )
        self.note = (
            f"one task: gradient method {config.method!r} has nothing to weigh; the plain gradient is taken"
            if tasks == 1 and config.method != "sum"
            else ""
        )
        """What a user should know about this combination, or nothing."""
        self.updates = 0
        self.cosines: torch.Tensor | None = None
        """[K, K] float64 of the latest step that solved for weights, for the report."""
        self._weights: np.ndarray | None = None
        self._previous: dict[str, torch.Tensor] = {}
        self._pattern: TaskRows | None = None

    def step(
        self,
        losses: torch.Tensor | Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor] | None = None,
    ) -> Combined:
        """Losses [K], or a function that makes them, to one gradient.

        With `loss_of`, one task's loss from its own samples, the faster of one backward and a loop is taken.
        """
        if callable(losses) and loss_of is not None and self._takes_rows():
            return self._measured(losses, loss_of)
        made = losses() if callable(losses) else losses
        self._check(made)
        if self._takes_rows():
            return self.combine(self.jacobian.rows(made), made)
        values = made.detach().double().cpu().numpy()
        metrics: dict[str, float] = {}
        gramian = None
        if self.tasks > 1 and self.weighting.needs_gramian and self._due():
            gramian = self.jacobian.gramian(made)
            metrics = self._observe(gramian)
        weights = self._solve(values, gramian)
        return Combined(self._weighted_pass(made, weights), weights, metrics | self._weight_metrics(weights))

    def rows(self, losses: torch.Tensor) -> TaskRows:
        """The half of `step` before ranks add up: gradients of every task."""
        self._check(losses)
        return self.jacobian.rows(losses)

    def combine(self, rows: TaskRows, losses: torch.Tensor) -> Combined:
        """The half of `step` after ranks have added up; `losses` [K] are mean losses."""
        if self._sparse is not None:
            self._sparse.mask_rows(rows)
        gramian = rows.gramian()
        metrics = self._observe(gramian) if self.tasks > 1 else {}
        values = losses.detach().double().cpu().numpy()
        weights = self._solve(values, gramian, self._persistence(rows, gramian))
        owned = weights if self.config.weigh_owned else torch.ones_like(weights)
        gradients = rows.combine(weights, owned)
        if self.weighting.needs_rows and self.tasks > 1:
            gradients |= {name: self.weighting.combine(values) for name, values in rows.shared.items()}
        return Combined(self._masked(gradients), weights, metrics | self._weight_metrics(weights))

    def after_step(self, losses: torch.Tensor) -> None:
        """Losses [K] of the same batch after the update, for weightings with `wants_losses_after` (FAMO)."""
        self.weighting.after_step(losses.detach().double().cpu().numpy())

    def assign(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Puts gradients where an optimiser looks for them."""
        for name, parameter in zip(self.jacobian.names, self.jacobian.parameters, strict=True):
            parameter.grad = gradients.get(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "weighting": self.weighting.state_dict(),
            "choice": self.choice.state_dict(),
            "updates": self.updates,
            "weights": None if self._weights is None else torch.from_numpy(self._weights.copy()),
            "previous": dict(self._previous),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.weighting.load_state_dict(state["weighting"])
        self.choice.load_state_dict(state["choice"])
        self.updates = state["updates"]
        self._weights = None if state["weights"] is None else state["weights"].numpy().copy()
        self._previous = dict(state["previous"])

    def _rows_mb(self) -> float:
        return self.tasks * self.size * self.jacobian.parameters[0].element_size() / 2**20

    def _due(self) -> bool:
        return self._weights is None or self.updates % self.config.every == 0

    def _takes_rows(self) -> bool:
        if self.tasks == 1 or self.streamed:
            return False
        return self.weighting.needs_rows or (self.weighting.needs_gramian and self._due())

    def _check(self, losses: torch.Tensor) -> None:
        if losses.shape != (self.tasks,):
            raise ConfigError(
                f"losses have shape {tuple(losses.shape)}; expected ({self.tasks},), one per task"
            )
        values = losses.detach()
        if not bool(torch.isfinite(values).all()):
            bad = [
                f"task {k}: {values[k].item()}" for k in range(self.tasks) if not torch.isfinite(values[k])
            ]
            raise DivergenceError("a task loss", self.updates, ", ".join(bad))
        if self.weighting.needs_positive_losses and bool((values < 0).any()):
            task = int(values.argmin())
            raise UnsupportedError(
                f"gradient method {self.config.method!r} met the loss {values[task].item():g} of task "
                f"{task}: {self.weighting.needs_positive_losses}; losses must not be negative"
            )

    def _measured(
        self, losses: Callable[[], torch.Tensor], loss_of: Callable[[int], torch.Tensor]
    ) -> Combined:
        way = self.choice.next() if self._pattern is not None else "backward"
        began = time.perf_counter()
        if way == "loop" and self._pattern is not None:
            values: list[torch.Tensor] = []

            def kept(task: int) -> torch.Tensor:
                loss = loss_of(task)
                values.append(loss.detach())
                return loss

            rows = self.jacobian.loop(kept, self._pattern)
            made = torch.stack(values)
            self._check(made)
        else:
            made = losses()
            self._check(made)
            rows = self.jacobian.rows(made)
            if self._pattern is None:
                self._pattern = rows
                if self.choice.chosen != "loop" and not all(own.by_rows for own in rows.owned.values()):
                    self.choice.chosen = "backward"
        if rows.shared:
            # Reading a number waits for the device, without which nothing was measured.
            next(iter(rows.shared.values())).view(-1)[0].item()
        self.choice.record(way, time.perf_counter() - began)
        return self.combine(rows, made)

    def _observe(self, gramian: torch.Tensor) -> dict[str, float]:
        diagonal = gramian.diagonal()
        if not bool(torch.isfinite(gramian).all()):
            bad = [f"gradient of task {k}" for k in range(self.tasks) if not torch.isfinite(diagonal[k])]
            raise DivergenceError(
                "a task gradient", self.updates, ", ".join(bad) or "inner products of gradients"
            )
        self.cosines = cosines(gramian)
        upper = torch.triu_indices(self.tasks, self.tasks, 1)
        pairs = self.cosines[upper[0], upper[1]]
        return {
            "cosine_mean": pairs.mean().item(),
            "cosine_min": pairs.min().item(),
            "conflict_share": (pairs < 0).double().mean().item(),
        }

    def _persistence(self, rows: TaskRows, gramian: torch.Tensor) -> np.ndarray | None:
        if not self.weighting.needs_persistence:
            return None
        found = torch.zeros(self.tasks, dtype=torch.float64)
        if self._previous:
            lengths = torch.zeros(self.tasks, dtype=torch.float64)
            for name, values in rows.shared.items():
                old = self._previous[name]
                found += (values.flatten(1) * old.flatten(1)).sum(1).to(found)
                lengths += old.flatten(1).square().sum(1).to(found)
            scale = (lengths * gramian.diagonal()).clamp_min(0).sqrt()
            found = torch.where(scale > 0, found / scale.clamp_min(1e-300), 0.0)
        self._previous = {name: values.clone() for name, values in rows.shared.items()}
        return found.numpy()

    def _solve(
        self, losses: np.ndarray, gramian: torch.Tensor | None, persistence: np.ndarray | None = None
    ) -> torch.Tensor:
        if self.tasks == 1:
            self.updates += 1
            return torch.ones(1, dtype=torch.float64)
        if self._weights is None or self._due():
            evidence = Evidence(losses, None if gramian is None else gramian.numpy(), persistence)
            found = self.weighting.weights(evidence)
            if self._weights is not None and self.config.smoothing > 0:
                found = self.config.smoothing * self._weights + (1 - self.config.smoothing) * found
            self._weights = found
        self.updates += 1
        return torch.from_numpy(self._weights.copy())

    def _weighted_pass(self, losses: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """One plain backward pass of the weighted losses, and a shallow one of what tasks own."""
        names, parameters = self.jacobian.names, self.jacobian.parameters
        scale = weights.to(losses)
        plain = bool((scale == 1).all())
        apart = set() if self.config.weigh_owned or plain else self._owned(losses)
        groups = [(scale, [n for n in range(len(names)) if names[n] not in apart])]
        if apart:
            groups.append((torch.ones_like(scale), [n for n in range(len(names)) if names[n] in apart]))
        gradients: dict[str, torch.Tensor] = {}
        for number, (factor, chosen) in enumerate(groups):
            found = torch.autograd.grad(
                losses, [parameters[n] for n in chosen], factor,
                retain_graph=number + 1 < len(groups), allow_unused=True,
            )  # fmt: skip
            gradients |= {
                names[n]: gradient for n, gradient in zip(chosen, found, strict=True) if gradient is not None
            }
        return self._masked(gradients)

    def _owned(self, losses: torch.Tensor) -> set[str]:
        if not self.jacobian.surveyed:
            self.jacobian.survey(losses)
        return set(self.jacobian.owned)

    def _masked(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return gradients if self._sparse is None else self._sparse.mask(gradients)

    def _weight_metrics(self, weights: torch.Tensor) -> dict[str, float]:
        return {
            "weight_min": weights.min().item(),
            "weight_max": weights.max().item(),
            "deficient": float(self.weighting.deficient),
        }
