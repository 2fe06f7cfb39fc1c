"""The rows of one step: by one backward pass or a loop, perturbed, over micro-batches, over ranks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.reducer import Reducer

from .config import SurgeryConfig
from .jacobian import TaskJacobian, TaskRows
from .perturbation import SAMPerturbation, perturbed
from .ranks import RankRows

Losses = torch.Tensor | Callable[[], torch.Tensor]
"""[K], or a function that makes them."""


class FastestMethod:
    """Takes several methods in turn for a few rounds, then the fastest alone.

    Methods differ in rounding, so the method of every step is part of a run: the choice is saved with it, and
    a resumed run, or one that names its choice, takes the same.
    """

    def __init__(self, methods: Sequence[str], rounds: int = 5, chosen: str = "") -> None:
        """`rounds` of measurement per method, after one that warms up; `chosen` skips the measurement."""
        if chosen and chosen not in methods:
            raise ConfigError(f"method {chosen!r}; expected one of {', '.join(methods)}")
        self.rounds = rounds
        self.chosen = chosen or (methods[0] if len(methods) == 1 else "")
        self.seconds: dict[str, list[float]] = {method: [] for method in methods}

    def next(self) -> str:
        """The method of the next step."""
        return self.chosen or min(self.seconds, key=lambda method: len(self.seconds[method]))

    def record(self, method: str, seconds: float) -> None:
        """Takes the duration of a step; decides once every method has had its rounds."""
        if self.chosen:
            return
        self.seconds[method].append(seconds)
        if all(len(values) > self.rounds for values in self.seconds.values()):
            self.chosen = min(self.seconds, key=lambda name: statistics.median(self.seconds[name][1:]))

    def state_dict(self) -> dict[str, Any]:
        """The choice and the durations of each method."""
        return {
            "chosen": self.chosen,
            "seconds": {name: list(values) for name, values in self.seconds.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.chosen = state["chosen"]
        self.seconds = {method: list(state["seconds"][method]) for method in self.seconds}


class MicroBatches:
    """Sums of rows and losses until a step takes their mean.

    A conflict between two small batches is often noise. GCond (arXiv 2509.07252) therefore resolves conflicts
    only after every task's gradient was accumulated over several micro-batches; any weighting may.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of micro-batches gathered since the last step."""
        self._sums: dict[str, torch.Tensor] = {}
        self._losses: torch.Tensor | None = None

    def add(self, rows: TaskRows, losses: torch.Tensor) -> None:
        """Adds a micro-batch; `losses` is [K]."""
        for name, values in rows.sums().items():
            if name in self._sums:
                self._sums[name] += values
            else:
                self._sums[name] = values.clone()
        values = losses.detach()
        self._losses = values.clone() if self._losses is None else self._losses + values
        self.count += 1

    def average(self, rows: TaskRows, losses: torch.Tensor) -> torch.Tensor:
        """Turns `rows` of the last micro-batch, in place, into the mean over all and forgets the others;
        returns the mean losses.
        """
        total = losses.detach() if self._losses is None else losses.detach() + self._losses
        for name, values in rows.sums().items():
            if name in self._sums:
                values.add_(self._sums[name])
            values.div_(self.count + 1)
        total = total / (self.count + 1)
        self.count, self._sums, self._losses = 0, {}, None
        return total


class StepRows:
    """Computes the gradients of all tasks, and the losses behind them."""

    def __init__(
        self, jacobian: TaskJacobian, config: SurgeryConfig, tasks: int, check: Callable[[torch.Tensor], None]
    ) -> None:
        """`check` raises for losses [K] that cannot be used."""
        self._jacobian, self._config, self._check = jacobian, config, check
        chosen = "" if config.row_method == "auto" else config.row_method
        self.choice = FastestMethod(("backward", "loop"), chosen=chosen)
        self.micro_batches = MicroBatches()
        self._pattern: TaskRows | None = None
        self._ranks = RankRows(jacobian.named, tasks)

    def rows(self, losses: torch.Tensor) -> TaskRows:
        """Of this rank's losses, by one backward pass."""
        if self._config.perturbation > 0:
            raise UnsupportedError(
                f"perturbation={self._config.perturbation:g} takes the gradient of every task at weights of "
                "its own, so it needs that task's loss again, as loss_of(task); set perturbation=0 for a "
                "learner that has the losses of one pass alone, or that gathers micro-batches"
            )
        self._check(losses)
        return self._jacobian.rows(losses)

    def reduced(
        self,
        losses: Losses,
        loss_of: Callable[[int], torch.Tensor] | None,
        reducer: Reducer,
        portion: torch.Tensor,
        retain_graph: Callable[[], bool],
    ) -> tuple[TaskRows, torch.Tensor]:
        """Rows and losses [K] of all ranks' samples; see `GradientSurgery.step`."""

        def over_ranks(make: Callable[[], tuple[TaskRows, torch.Tensor]]) -> tuple[TaskRows, torch.Tensor]:
            return make() if reducer.size == 1 else self._ranks.reduced(make, reducer, portion)

        if not callable(losses) or loss_of is None or self.micro_batches.count > 0:
            return over_ranks(lambda: self._joint(losses))
        if self._config.perturbation > 0:
            rows, values = over_ranks(lambda: self._backward(losses, lambda: False))
            perturbation = SAMPerturbation(rows, self._config.perturbation, self._config.perturbation_local)

            def at_perturbed_weights() -> tuple[TaskRows, torch.Tensor]:
                named = self._jacobian.named
                perturbed_rows = self._jacobian.loop(
                    loss_of, rows, lambda task: perturbed(named, perturbation.of(task))
                )
                return perturbed_rows, values

            return over_ranks(at_perturbed_weights)[0], values
        seconds: list[float] = []
        method = self.choice.next()
        reduced = over_ranks(lambda: self._timed(method, seconds, losses, loss_of, retain_graph))
        if not self.choice.chosen:
            self.choice.record(method, reducer.agree(seconds[0], "sum"))
        return reduced

    def _joint(self, losses: Losses) -> tuple[TaskRows, torch.Tensor]:
        made = losses() if callable(losses) else losses
        rows = self.rows(made)
        return rows, self.micro_batches.average(rows, made) if self.micro_batches.count > 0 else made

    def _backward(
        self, losses: Callable[[], torch.Tensor], retain_graph: Callable[[], bool]
    ) -> tuple[TaskRows, torch.Tensor]:
        made = losses()
        self._check(made)
        return self._jacobian.rows(made, retain_graph=retain_graph()), made

    def _timed(
        self,
        method: str,
        seconds: list[float],
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        retain_graph: Callable[[], bool],
    ) -> tuple[TaskRows, torch.Tensor]:
        """By one backward pass or a loop over tasks; appends the duration."""
        if method == "loop" and self._pattern is None:
            # one backward pass finds what tasks own, as input of the loop
            self._pattern = self._jacobian.rows(losses())
        began = time.perf_counter()
        if method == "loop" and self._pattern is not None:
            values: list[torch.Tensor] = []

            def kept(task: int) -> torch.Tensor:
                loss = loss_of(task)
                values.append(loss.detach())
                return loss

            rows = self._jacobian.loop(kept, self._pattern)
            made = torch.stack(values)
            self._check(made)
        else:
            rows, made = self._backward(losses, retain_graph)
            self._pattern = self._pattern or rows
        if rows.shared:
            # reading a number waits for the device, without which only the launch is measured
            next(iter(rows.shared.values())).view(-1)[0].item()
        seconds.append(time.perf_counter() - began)
        return rows, made
