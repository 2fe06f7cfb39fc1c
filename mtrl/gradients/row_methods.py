"""The rows of one step: by the faster of two ways, a step uphill, over micro-batches, over ranks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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


class StepRows:
    """Gets the gradients of all tasks, and the losses behind them."""

    def __init__(
        self,
        jacobian: TaskJacobian,
        config: SurgeryConfig,
        tasks: int,
        check: Callable[[torch.Tensor], None],
    ) -> None:
        """`check` raises for losses [K] that are not what they should be."""
        self._jacobian, self._config, self._check = jacobian, config, check
        self.choice = FastestMethod(
            ("backward", "loop"), chosen="" if config.row_method == "auto" else config.row_method
        )
        self.gathered = GatheredRows()
        self._pattern: TaskRows | None = None
        self._named = dict(zip(jacobian.names, jacobian.parameters, strict=True))
        self._ranks = RankRows(self._named, tasks)

    def rows(self, losses: torch.Tensor) -> TaskRows:
        """Of this rank's losses, by one backward."""
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
        if not callable(losses) or loss_of is None or self.gathered.count > 0:
            return self._reduced(lambda: self._joint(losses), reducer, portion)
        if self._config.perturbation > 0:
            return self._perturbed(losses, loss_of, reducer, portion)
        timed: list[float] = []
        way = self.choice.next()
        found = self._reduced(
            lambda: self._timed(way, timed, losses, loss_of, retain_graph), reducer, portion
        )
        if not self.choice.chosen:
            self.choice.record(way, reducer.agree(timed[0], "sum"))
        return found

    def _reduced(
        self, make: Callable[[], tuple[TaskRows, torch.Tensor]], reducer: Reducer, portion: torch.Tensor
    ) -> tuple[TaskRows, torch.Tensor]:
        return make() if reducer.size == 1 else self._ranks.reduced(make, reducer, portion)

    def _joint(self, losses: Losses) -> tuple[TaskRows, torch.Tensor]:
        made = losses() if callable(losses) else losses
        rows = self.rows(made)
        return rows, self.gathered.average(rows, made) if self.gathered.count > 0 else made

    def _timed(
        self,
        way: str,
        seconds: list[float],
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        retain_graph: Callable[[], bool],
    ) -> tuple[TaskRows, torch.Tensor]:
        """By one backward or a loop over tasks; appends how long it took."""
        pattern = self._pattern
        if way == "loop" and pattern is None:
            # one backward finds out what tasks own, which the loop has to know
            pattern = self._pattern = self._jacobian.rows(losses())
        began = time.perf_counter()
        if way == "loop" and pattern is not None:
            values: list[torch.Tensor] = []

            def kept(task: int) -> torch.Tensor:
                loss = loss_of(task)
                values.append(loss.detach())
                return loss

            rows = self._jacobian.loop(kept, pattern)
            made = torch.stack(values)
            self._check(made)
        else:
            made = losses()
            self._check(made)
            rows = self._jacobian.rows(made, retain_graph=retain_graph())
            self._pattern = self._pattern or rows
        if rows.shared:
            # Reading a number waits for the device, without which nothing was measured.
            next(iter(rows.shared.values())).view(-1)[0].item()
        seconds.append(time.perf_counter() - began)
        return rows, made

    def _perturbed(
        self,
        losses: Callable[[], torch.Tensor],
        loss_of: Callable[[int], torch.Tensor],
        reducer: Reducer,
        portion: torch.Tensor,
    ) -> tuple[TaskRows, torch.Tensor]:
        """Each task's row a step uphill, the losses where the weights are."""

        def here() -> tuple[TaskRows, torch.Tensor]:
            made = losses()
            self._check(made)
            return self._jacobian.rows(made), made

        rows, values = self._reduced(here, reducer, portion)
        steps = SAMPerturbation(rows, self._config.perturbation, self._config.perturbation_local)

        def around(task: int) -> AbstractContextManager[None]:
            return perturbed(self._named, steps.step(task))

        def above() -> tuple[TaskRows, torch.Tensor]:
            return self._jacobian.loop(loss_of, rows, around), values

        return self._reduced(above, reducer, portion)[0], values


class FastestMethod:
    """Takes turns between ways for a few rounds, then stays with the fastest.

    The ways differ in rounding, so what was taken at every step is part of a run: the choice is saved with
    it, and a resumed run, or one that names its choice, goes the same way.
    """

    def __init__(self, ways: Sequence[str], rounds: int = 5, chosen: str = "") -> None:
        """`rounds` of measurement per way, after one that warms up; `chosen` skips the measurement."""
        if chosen and chosen not in ways:
            raise ConfigError(f"way {chosen!r}; expected one of {', '.join(ways)}")
        self.ways = tuple(ways)
        self.rounds = rounds
        self.chosen = chosen or (self.ways[0] if len(self.ways) == 1 else "")
        self.seconds: dict[str, list[float]] = {way: [] for way in self.ways}

    def next(self) -> str:
        """The way to take now."""
        if self.chosen:
            return self.chosen
        return min(self.ways, key=lambda way: len(self.seconds[way]))

    def record(self, way: str, seconds: float) -> None:
        """How long it took; decides once every way has had its rounds."""
        if self.chosen:
            return
        self.seconds[way].append(seconds)
        if all(len(values) > self.rounds for values in self.seconds.values()):
            self.chosen = min(self.ways, key=lambda name: statistics.median(self.seconds[name][1:]))

    def state_dict(self) -> dict[str, Any]:
        """The choice and how many rounds each way has had."""
        return {"chosen": self.chosen, "seconds": {way: list(values) for way, values in self.seconds.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.chosen = state["chosen"]
        self.seconds = {way: list(state["seconds"][way]) for way in self.ways}


class GatheredRows:
    """Sums of rows and losses until a step takes their mean.

    A conflict between two small batches is often noise. GCond (arXiv 2509.07252) therefore settles conflicts
    only after every task's gradient was accumulated over several micro-batches; any weighting may.
    """

    def __init__(self) -> None:
        self.count = 0
        """Micro-batches held."""
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
        """Turns `rows` of the last micro-batch, in place, into the mean over all; returns the mean losses.

        Nothing is held afterwards.
        """
        total = losses.detach()
        if self._losses is not None:
            total = total + self._losses
        for name, values in rows.sums().items():
            if name in self._sums:
                values.add_(self._sums[name])
            values.div_(self.count + 1)
        total = total / (self.count + 1)
        self.count, self._sums, self._losses = 0, {}, None
        return total
