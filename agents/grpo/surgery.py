"""Gradient surgery on the decisions of a minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtrl.gradients import GradientSurgery, SurgeryConfig
from mtrl.reducer import Like, Reducer, Sums

from .networks import StepBatch

RowLosses = Callable[[StepBatch], Tensor]
"""Losses summed over the decisions of each row of a minibatch, [rows]."""


class MinibatchSurgery:
    """The gradient of one network, combined from those of the tasks that a minibatch holds."""

    def __init__(
        self, network: nn.Module, config: SurgeryConfig, tasks: int, seed: int, *, signed: str
    ) -> None:
        """`signed` names the losses, which may be negative."""
        self._tasks = tasks
        self._named = dict(network.named_parameters())
        self._surgery = GradientSurgery(network, config, tasks, seed, signed=signed)

    def gradients(
        self, batch: StepBatch | None, losses: RowLosses, count: Tensor, reducer: Reducer
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The gradient of the mean loss by parameter, and what surgery measured; the plain one where a task
        is absent. `count` [K] are the decisions of all ranks; a rank without any passes no batch.
        """
        share = (count / count.sum()).float()
        if bool((count > 0).all()):
            own = self._by_task(batch.weight, batch.task) if batch is not None else torch.zeros(self._tasks)

            def of_tasks() -> Tensor:
                if batch is None:
                    nothing = sum((p.sum() for p in self._named.values()), torch.zeros(()))
                    return nothing * torch.zeros(self._tasks)
                return self._by_task(losses(batch), batch.task) / own.clamp_min(1.0) * share

            portion = (own / count.float()).float()
            combined = self._surgery.step(of_tasks, reducer=reducer, portion=portion)
            return dict(combined.gradients), dict(combined.metrics)
        like: Like = {name: (value.shape, value.dtype) for name, value in self._named.items()}

        def plain() -> Sums:
            return {} if batch is None else summed_gradients(losses(batch).sum(), self._named)

        sums = reducer.sums(plain, like)
        return self._surgery.masked({name: value / float(count.sum()) for name, value in sums.items()}), {}

    def take_cosines(self) -> npt.NDArray[np.float64] | None:
        """[K, K], of the tasks' gradients since the last call."""
        return self._surgery.take_cosines()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return self._surgery.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._surgery.load_state_dict(state)

    def _by_task(self, values: Tensor, task: Tensor) -> Tensor:
        """[rows] or [rows, B] -> [K], 0 for absent tasks."""
        rows = values if values.dim() == 1 else values.sum(1)
        return torch.zeros(self._tasks, dtype=rows.dtype).index_add(0, task, rows)


def summed_gradients(total: Tensor, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradient of a sum by parameter, 0 where it does not depend on it."""
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    pairs = zip(named.items(), found, strict=True)
    return {name: torch.zeros_like(value) if g is None else g for (name, value), g in pairs}
