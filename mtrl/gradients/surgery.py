"""From K task losses to one gradient: rows, weights, combination."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.errors import ConfigError, DivergenceError, UnsupportedError

from .choice import MeasuredChoice
from .config import SurgeryConfig
from .conflict import ConflictRecord
from .gathering import GatheredRows
from .jacobian import TaskJacobian
from .rows import TaskRows
from .schedule import WeightingSchedule
from .sparse import SparseUpdate
from .uphill import Uphill, moved
from .weightings import make_weighting


@dataclass(frozen=True)
class Combined:
    """One step's update."""

    gradients: dict[str, torch.Tensor]
    """Parameter name -> gradient. Hand it to the optimiser, or add what stays outside first."""
    weights: torch.Tensor
    """[K] float64."""
    losses: torch.Tensor
    """[K], of which these are the gradients; without a graph."""
    metrics: dict[str, float]
    """See METRICS."""


_HALF = (torch.bfloat16, torch.float16)

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
        if config.perturbation > 0 and any(p.dtype in _HALF for p in self.jacobian.parameters):
            raise UnsupportedError(
                f"perturbation={config.perturbation:g} is less than what {self.jacobian.parameters[0].dtype} "
                "weights resolve, so that most of them would not move; set agent.precision=fp32"
            )
        self.size = sum(parameter.numel() for parameter in self.jacobian.parameters)
        named = dict(zip(self.jacobian.names, self.jacobian.parameters, strict=True))
        self._sparse = SparseUpdate(named, config.trained_share, seed) if config.trained_share < 1 else None
        self.streamed = self._rows_mb() > config.memory_mb
        whole = config.perturbation > 0 or self.weighting.needs_rows or self.weighting.needs_persistence
        if self.streamed and (self._sparse or whole):
            raise self._too_large(
                f"gradient method {config.method!r} with trained_share={config.trained_share:g} and "
                f"perturbation={config.perturbation:g}"
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
        self._schedule = WeightingSchedule(self.weighting, tasks, config.every, config.smoothing)
        self._conflict = ConflictRecord(tasks)
        self._gathered = GatheredRows()
        self._pattern: TaskRows | None = None

    @property
    def updates(self) -> int:
        """Steps taken."""
        return self._schedule.steps

    @property
    def cosines(self) -> torch.Tensor | None:
        """[K, K] float64 of the latest step that solved for weights."""
        return self._conflict.latest

    def take_cosines(self) -> npt.NDArray[np.float64] | None:
        """[K, K], cosines between task gradients averaged since the last call, NaN for pairs that were not
        measured; None where nothing was.
        """
        return self._conflict.take()

    def step(
        self,
        losses: torch.Tensor | Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor] | None = None,
    ) -> Combined:
        """Losses [K], or a function that makes them, to one gradient.

        With `loss_of`, one task's loss from its own samples, the faster of one backward and a loop is taken;
        it must give the same loss however often it is asked. `perturbation` cannot do without it and raises
        UnsupportedError. The losses' graph is freed.
        """
        gathered = self._gathered.count > 0
        if callable(losses) and loss_of is not None and self.takes_rows() and not gathered:
            return self.combine(*self.measured_rows(losses, loss_of))
        made = losses() if callable(losses) else losses
        if gathered:
            rows = self.rows(made)
            return self.combine(rows, self._gathered.average(rows, made))
        if self.takes_rows():
            return self.combine(self.rows(made), made)
        self._check(made)
        values = made.detach().double().cpu().numpy()
        metrics: dict[str, float] = {}
        gramian = None
        if self.tasks > 1 and self.weighting.needs_gramian and self._schedule.due:
            gramian = self.jacobian.gramian(made)
            metrics = self._observe(gramian)
        weights = self._schedule.weights(values, gramian)
        gradients = self._weighted_pass(made, weights)
        return Combined(gradients, weights, made.detach(), metrics | self._weight_metrics(weights))

    def gather(self, losses: torch.Tensor) -> None:
        """Adds a micro-batch of losses [K], whose task gradients the next `step` averages with its own. The
        losses' graph is freed.

        What is gathered is no part of `state_dict`: save between steps. Raises UnsupportedError where rows
        do not fit into `memory_mb`.
        """
        if self.streamed:
            raise self._too_large("gathering micro-batches")
        self._gathered.add(self.rows(losses), losses)

    def rows(self, losses: torch.Tensor) -> TaskRows:
        """The half of `step` before ranks add up: gradients of every task. The losses' graph is freed.

        Raises UnsupportedError with `perturbation`, which `measured_rows` serves.
        """
        if self.config.perturbation > 0:
            raise UnsupportedError(
                f"perturbation={self.config.perturbation:g} takes the gradient of every task at weights of "
                "its own, so it needs that task's loss anew, as loss_of(task); set perturbation=0 for a "
                "learner that has the losses of one pass alone, or that gathers micro-batches"
            )
        self._check(losses)
        return self.jacobian.rows(losses)

    def measured_rows(
        self,
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        retain_graph: Callable[[], bool] = lambda: False,
    ) -> tuple[TaskRows, torch.Tensor]:
        """`rows` and the losses [K] behind them, by the faster of one backward and a loop over tasks; with
        `perturbation` each task's row a step uphill, the losses where the weights are. `retain_graph` is
        asked once `losses` has been, where one backward is taken without `perturbation`.
        """
        if self.config.perturbation > 0:
            return self._uphill_rows(losses(), loss_of)
        way = self.choice.next()
        pattern = self._pattern
        if way == "loop" and pattern is None:
            # one backward finds out what tasks own, which the loop has to know
            pattern = self._pattern = self.jacobian.rows(losses())
        began = time.perf_counter()
        if way == "loop" and pattern is not None:
            values: list[torch.Tensor] = []

            def kept(task: int) -> torch.Tensor:
                loss = loss_of(task)
                values.append(loss.detach())
                return loss

            rows = self.jacobian.loop(kept, pattern)
            made = torch.stack(values)
            self._check(made)
        else:
            made = losses()
            self._check(made)
            rows = self.jacobian.rows(made, retain_graph=retain_graph())
            self._pattern = self._pattern or rows
        if rows.shared:
            # Reading a number waits for the device, without which nothing was measured.
            next(iter(rows.shared.values())).view(-1)[0].item()
        self.choice.record(way, time.perf_counter() - began)
        return rows, made

    def combine(self, rows: TaskRows, losses: torch.Tensor) -> Combined:
        """The half of `step` after ranks have added up; `losses` [K] are mean losses."""
        if self._sparse is not None:
            self._sparse.mask_rows(rows)
        gramian = rows.gramian()
        metrics = self._observe(gramian) if self.tasks > 1 else {}
        values = losses.detach().double().cpu().numpy()
        weights = self._schedule.weights(values, gramian, self._schedule.persistence(rows, gramian))
        owned = weights if self.config.weigh_owned else torch.ones_like(weights)
        with torch.autocast(self.jacobian.parameters[0].device.type, enabled=False):
            gradients = rows.combine(weights, owned)
        if self.weighting.needs_rows and self.tasks > 1:
            gradients |= {name: self.weighting.combine(values) for name, values in rows.shared.items()}
        metrics |= self._weight_metrics(weights)
        return Combined(self.masked(gradients), weights, losses.detach(), metrics)

    def after_step(self, losses: torch.Tensor) -> None:
        """Losses [K] of the same batch after the update, where `wants_losses_after`. Passed over elsewhere,
        and where a loss is not finite, which the next step meets again.
        """
        self._schedule.after_step(losses)

    @property
    def wants_losses_after(self) -> bool:
        """Whether the latest step found weights that learn from the losses after it (FAMO)."""
        return self._schedule.solved and self.weighting.wants_losses_after

    def masked(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gradients of another origin, 0 where `trained_share` leaves parameters as they are."""
        return gradients if self._sparse is None else self._sparse.mask(gradients)

    def assign(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Puts gradients where an optimiser looks for them."""
        for name, parameter in zip(self.jacobian.names, self.jacobian.parameters, strict=True):
            parameter.grad = gradients.get(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            **self._schedule.state_dict(),
            "choice": self.choice.state_dict(),
            "conflict": self._conflict.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._schedule.load_state_dict(state)
        self.choice.load_state_dict(state["choice"])
        self._conflict.load_state_dict(state["conflict"])

    def _uphill_rows(
        self, losses: torch.Tensor, loss_of: Callable[[int], torch.Tensor]
    ) -> tuple[TaskRows, torch.Tensor]:
        self._check(losses)
        rows = self.jacobian.rows(losses)
        named = dict(zip(self.jacobian.names, self.jacobian.parameters, strict=True))
        uphill = Uphill(rows, self.config.perturbation, self.config.perturbation_local)
        return self.jacobian.loop(loss_of, rows, lambda task: moved(named, uphill.step(task))), losses

    def _too_large(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{what} needs all rows, {self._rows_mb():.0f} MB for {self.tasks} tasks; "
            f"raise memory_mb={self.config.memory_mb:g}"
        )

    def _rows_mb(self) -> float:
        return self.tasks * self.size * self.jacobian.parameters[0].element_size() / 2**20

    def takes_rows(self) -> bool:
        """Whether the next step keeps all rows: to solve for weights, or for gradients uphill."""
        if self.config.perturbation > 0:
            return True
        if self.tasks == 1 or self.streamed:
            return False
        return self.weighting.needs_rows or (self.weighting.needs_gramian and self._schedule.due)

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

    def _observe(self, gramian: torch.Tensor) -> dict[str, float]:
        diagonal = gramian.diagonal()
        if not bool(torch.isfinite(gramian).all()):
            bad = [f"gradient of task {k}" for k in range(self.tasks) if not torch.isfinite(diagonal[k])]
            raise DivergenceError(
                "a task gradient", self.updates, ", ".join(bad) or "inner products of gradients"
            )
        return self._conflict.add(gramian)

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
        return self.masked(gradients)

    def _owned(self, losses: torch.Tensor) -> set[str]:
        if not self.jacobian.surveyed:
            self.jacobian.survey(losses)
        return set(self.jacobian.owned)

    def _weight_metrics(self, weights: torch.Tensor) -> dict[str, float]:
        return {
            "weight_min": weights.min().item(),
            "weight_max": weights.max().item(),
            "deficient": float(self.weighting.deficient),
        }
