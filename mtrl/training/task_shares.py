"""Applies a task sampler: lanes stepped in proportion, and tasks weighted in updates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import MtrlWarning
from mtrl.tasks import TaskSampler

from .agent import TakesShares
from .metrics import Metric, Metrics
from .sources import Source

SHARE_METRICS: Metrics = {
    "share/{task}": Metric(
        "share of the task as the sampler sees it now; all tasks together have 1. Absent while sampling is "
        "uniform",
        "1",
        "mtrl.training.task_shares:TaskShares.metrics",
    ),
}
"""Metrics of a task sampler in metrics.jsonl."""


class TaskShares:
    """Applies a sampler's shares in the training loop; without a sampler it does nothing."""

    def __init__(self, sampler: TaskSampler | None, names: Sequence[str]) -> None:
        """`names` of the tasks by index."""
        self._sampler, self._names = sampler, tuple(names)
        self._source: Source | None = None
        self._agent: object = None
        self._current: npt.NDArray[np.float64] | None = None

    def attach(self, source: Source, agent: object) -> None:
        """Applies the shares to both, now and at every `apply_shares`; warns where one ignores them."""
        self._source, self._agent = source, agent
        if self._sampler is not None and self._sampler.config.updates and not isinstance(agent, TakesShares):
            _warn("the agent weights all tasks equally")
        self.apply_shares()

    def observe(self, task_index: int, episode_return: float, success: bool) -> None:
        """Records a finished episode."""
        if self._sampler is not None:
            self._sampler.observe(task_index, episode_return, success)

    def apply_shares(self) -> None:
        """Applies the shares to the source and the agent where they have changed."""
        if self._sampler is None:
            return
        shares, config = self._sampler.shares, self._sampler.config
        if self._current is not None and np.array_equal(shares, self._current):
            return
        first, self._current = self._current is None, shares
        if config.collection:
            taken = self._source is not None and self._source.set_shares(shares)
            if first and not taken:
                _warn("the source collects all tasks equally")
        if config.updates and isinstance(self._agent, TakesShares):
            self._agent.set_task_shares(shares)

    def metrics(self) -> dict[str, float]:
        """The shares by their names in the record."""
        if self._sampler is None:
            return {}
        shares = self._sampler.shares.tolist()
        return {f"share/{name}": share for name, share in zip(self._names, shares, strict=True)}

    def state_dict(self) -> dict[str, Any] | None:
        """The state of the sampler; None without one."""
        return None if self._sampler is None else self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restores `state_dict`, before `attach`."""
        if self._sampler is not None and state is not None:
            self._sampler.load_state_dict(state)


def _warn(fact: str) -> None:
    warnings.warn(f"sampling has no effect here: {fact}", MtrlWarning, stacklevel=3)
