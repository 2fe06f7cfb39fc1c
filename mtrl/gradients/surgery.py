"""From K task losses to one gradient: rows, weights, combination."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.errors import ConfigError, DivergenceError, UnsupportedError
from mtrl.reducer import ALONE, Reducer

from .config import SurgeryConfig
from .jacobian import RankBlocks, TaskJacobian, TaskRows
from .metrics import Combined, ConflictRecord, require_finite
from .ranks import reduced_losses
from .row_methods import Losses, StepRows
from .schedule import WeightingSchedule
from .sparse import SparseUpdate
from .weighted_sum import WeightedPass
from .weightings import make_weighting

_HALF = (torch.bfloat16, torch.float16)
BLOCK_MB = 16.0
"""Rows that ranks add up at a time where the Gramian is streamed."""


class GradientSurgery:
    """Turns the losses of K tasks into one gradient by a weighting of their gradients.

    surgery = GradientSurgery(critic, SurgeryConfig(method="pcgrad"), tasks=10)
    combined = surgery.step(batch.task_losses(errors))
    surgery.assign(combined.gradients)
    optimiser.step()
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
        self._first = self.jacobian.parameters[0]
        if config.perturbation > 0 and any(p.dtype in _HALF for p in self.jacobian.parameters):
            raise UnsupportedError(
                f"perturbation={config.perturbation:g} is less than what {self._first.dtype} weights "
                "resolve, so that most of them would not move; set agent.precision=fp32"
            )
        self.size = sum(parameter.numel() for parameter in self.jacobian.parameters)
        named = self.jacobian.named
        self._sparse = SparseUpdate(named, config.trained_share, seed) if config.trained_share < 1 else None
        self.streamed = self._rows_mb() > config.memory_mb
        whole = config.perturbation > 0 or self.weighting.needs_rows or self.weighting.needs_previous
        if self.streamed and (self._sparse or whole):
            raise self._too_large(
                f"gradient method {config.method!r} with trained_share={config.trained_share:g} and "
                f"perturbation={config.perturbation:g}"
            )
        self._rows = StepRows(self.jacobian, config, tasks, self._check)
        self.choice = self._rows.choice
        self.note = ""
        """A remark on this combination for the user, or empty."""
        if tasks == 1 and config.method != "sum":
            nothing = f"one task: gradient method {config.method!r} has nothing to weigh"
            self.note = f"{nothing}; the plain gradient is taken"
        self._schedule = WeightingSchedule(self.weighting, tasks, config.every, config.smoothing)
        self._conflict = ConflictRecord(tasks)
        self._pass = WeightedPass(self.jacobian, weigh_owned=config.weigh_owned)

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
        losses: Losses,
        loss_of: Callable[[int], torch.Tensor] | None = None,
        *,
        reducer: Reducer = ALONE,
        portion: torch.Tensor | None = None,
        retain_graph: Callable[[], bool] = lambda: False,
    ) -> Combined:
        """Losses [K], or a function that makes them, to one gradient.

        With `loss_of`, the loss of one task from its own samples, the faster of one backward pass and a loop
        is taken; it must return the same loss on every call. `perturbation` needs it, else UnsupportedError.
        The losses' graph is freed unless `retain_graph`, which is called after `losses` and only where one
        backward pass is taken.

        Each of several ranks passes the losses of its own samples, and `portion` [K], their share of every
        task's samples (1 / size by default). Losses and rows are added up before they are weighted; an error
        of one rank is raised on all.
        """
        share = self._share(reducer, portion)
        if self.takes_rows() or self._rows.micro_batches.count > 0:
            return self.combine(*self._rows.reduced(losses, loss_of, reducer, share, retain_graph))
        local: list[torch.Tensor] = []

        def made() -> torch.Tensor:
            local.append(losses() if callable(losses) else losses)
            self._check(local[0])
            return local[0]

        alone = reducer.size == 1
        values = made().detach() if alone else reduced_losses(made, self.tasks, reducer, share)
        metrics: dict[str, float] = {}
        gramian = None
        if self.tasks > 1 and self.weighting.needs_gramian and self._schedule.due:
            gramian = self._streamed_gramian(local[0], reducer, share)
            metrics = self._observe(gramian)
        weights = self._schedule.weights(values.double().cpu().numpy(), gramian)
        gradients = self._pass.gradients(
            local[0], weights, reducer=reducer, portion=share, retain_graph=retain_graph()
        )
        return Combined(self.masked(gradients), weights, values, metrics | self._weight_metrics(weights))

    def gather(self, losses: torch.Tensor) -> None:
        """Adds a micro-batch of losses [K], whose task gradients the next `step` averages with its own. The
        losses' graph is freed.

        Micro-batches are no part of `state_dict`: save between steps. Raises UnsupportedError where rows do
        not fit into `memory_mb`.
        """
        if self.streamed:
            raise self._too_large("gathering micro-batches")
        self._rows.micro_batches.add(self.rows(losses), losses)

    def rows(self, losses: torch.Tensor) -> TaskRows:
        """Gradients of every task, of one process alone. The losses' graph is freed.

        Raises UnsupportedError with `perturbation`, which needs `loss_of`.
        """
        return self._rows.rows(losses)

    def _share(self, reducer: Reducer, portion: torch.Tensor | None) -> torch.Tensor:
        if portion is not None:
            return portion
        return torch.full((self.tasks,), 1.0 / reducer.size, device=self._first.device)

    def _streamed_gramian(
        self, losses: torch.Tensor, reducer: Reducer, portion: torch.Tensor
    ) -> torch.Tensor:
        if reducer.size == 1:
            return self.jacobian.gramian(losses)
        memory = self.config.memory_mb
        blocks = RankBlocks(reducer, portion, self._first, BLOCK_MB, memory)
        try:
            return self.jacobian.gramian(losses, min(BLOCK_MB, memory), blocks)
        except Exception as error:
            blocks.fail(error)
            raise

    def combine(self, rows: TaskRows, losses: torch.Tensor) -> Combined:
        """The half of `step` that follows the rows; `losses` [K] are mean losses."""
        if self._sparse is not None:
            self._sparse.mask_rows(rows)
        # G = J J^T
        gramian = rows.gramian()
        metrics = self._observe(gramian) if self.tasks > 1 else {}
        values = losses.detach().double().cpu().numpy()
        weights = self._schedule.weights(values, gramian, self._schedule.products_with_previous(rows))
        owned = weights if self.config.weigh_owned else torch.ones_like(weights)
        # the update w^T J
        with torch.autocast(self._first.device.type, enabled=False):
            gradients = rows.combine(weights, owned)
        if self.weighting.needs_rows and self.tasks > 1:
            gradients |= {name: self.weighting.combine(values) for name, values in rows.shared.items()}
        metrics |= self._weight_metrics(weights)
        return Combined(self.masked(gradients), weights, losses.detach(), metrics)

    def observe_post_step_losses(
        self, losses: Losses, *, reducer: Reducer = ALONE, portion: torch.Tensor | None = None
    ) -> None:
        """Takes losses [K] of the same batch after the update, where `needs_post_step`. They are ignored
        elsewhere, and where one is not finite, for which the next step raises.
        """

        def made() -> torch.Tensor:
            return losses() if callable(losses) else losses

        if reducer.size > 1:
            reduced = reduced_losses(made, self.tasks, reducer, self._share(reducer, portion))
            self._schedule.observe_post_step_losses(reduced)
        else:
            self._schedule.observe_post_step_losses(made())

    @property
    def needs_post_step(self) -> bool:
        """Whether the latest step found weights that learn from the losses after it (FAMO)."""
        return self._schedule.solved and self.weighting.needs_post_step

    def masked(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gradients of any origin, 0 where `trained_share` keeps parameters fixed."""
        return gradients if self._sparse is None else self._sparse.mask(gradients)

    def assign(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Writes the parameters' `.grad`, which an optimiser reads."""
        for name, parameter in self.jacobian.named.items():
            parameter.grad = gradients.get(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            **self._schedule.state_dict(),
            "choice": self.choice.state_dict(),
            "conflict": self._conflict.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._schedule.load_state_dict(state)
        self.choice.load_state_dict(state["choice"])
        self._conflict.load_state_dict(state["conflict"])

    def _too_large(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{what} needs all rows, {self._rows_mb():.0f} MB for {self.tasks} tasks; "
            f"raise memory_mb={self.config.memory_mb:g}"
        )

    def _rows_mb(self) -> float:
        return self.tasks * self.size * self._first.element_size() / 2**20

    def takes_rows(self) -> bool:
        """Whether the next step keeps all rows: to solve for weights, or for perturbed gradients."""
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
        require_finite(losses, "a task loss", self.updates)
        values = losses.detach()
        if self.weighting.needs_positive_losses and bool((values < 0).any()):
            task = int(values.argmin())
            raise UnsupportedError(
                f"gradient method {self.config.method!r} met the loss {values[task].item():g} of task "
                f"{task}: {self.weighting.needs_positive_losses}; losses must not be negative"
            )

    def _observe(self, gramian: torch.Tensor) -> dict[str, float]:
        if not bool(torch.isfinite(gramian).all()):
            finite = torch.isfinite(gramian.diagonal()).tolist()
            bad = ", ".join(f"gradient of task {k}" for k, known in enumerate(finite) if not known)
            raise DivergenceError("a task gradient", self.updates, bad or "inner products of gradients")
        return self._conflict.add(gramian)

    def _weight_metrics(self, weights: torch.Tensor) -> dict[str, float]:
        return {
            "weight_min": weights.min().item(),
            "weight_max": weights.max().item(),
            "deficient": float(self.weighting.deficient),
        }
