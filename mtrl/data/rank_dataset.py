"""Demonstrations of which every rank holds a share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mtrl.errors import ConfigError, MtrlError
from mtrl.reducer import Reducer
from mtrl.spaces import Layout, Moments, RunningMoments

from .batch import Batch
from .chunks import ChunkDataset
from .trajectories import Trajectories


class RankDataset:
    """A `ChunkDataset` of this rank's episodes, ready once all ranks have theirs."""

    def __init__(self, layout: Layout, history: int, chunk: int, ranks: int, owner: str) -> None:
        """`owner` is who learns from it, for messages."""
        self.ready = False
        """Whether all ranks agreed that they have demonstrations."""
        self.portion: torch.Tensor | None = None
        """[K], the share of each task's samples that is this rank's; None alone."""
        self._layout, self._history, self._chunk = layout, history, chunk
        self._ranks, self._owner = ranks, owner
        self._dataset: ChunkDataset | None = None
        self._failure: MtrlError | None = None
        self._statistics = RunningMoments(layout.task_count, layout.state_size)

    @property
    def moments(self) -> Moments:
        """Of all ranks' states."""
        return self._statistics.freeze(self._layout.state_mask)

    def ingest(self, data: Mapping[int, Trajectories]) -> None:
        """Takes demonstrations by task. Raises ConfigError for a task without any; of several ranks one may
        lack some, and `agree` raises what is wrong on all.
        """
        try:
            self._dataset = ChunkDataset(
                self._layout, data, self._history, self._chunk, partial=self._ranks > 1
            )
        except ConfigError as error:
            if self._ranks == 1:
                raise
            self._failure = error

    def agree(self, reducer: Reducer) -> bool:
        """Whether all ranks have demonstrations; if so, merges their statistics. Collective."""
        if not reducer.agree(float(self._dataset is not None or self._failure is not None), "min"):
            return False
        reducer.sums(self._checked, {})
        assert self._dataset is not None, "it was checked"
        own, count = self._dataset.statistics, self._layout.task_count
        rows = np.concatenate([own.count[:, None], own.mean, own.squares], axis=1)
        every = reducer.gather(torch.from_numpy(rows)).numpy().reshape(reducer.size, count, -1)
        for rank in every:
            for k in np.flatnonzero(rank[:, 0]).tolist():
                self._statistics.add(k, float(rank[k, 0]), *np.split(rank[k, 1:], 2))
        has = every[:, :, 0] > 0
        missing = np.flatnonzero(~has.any(axis=0)).tolist()
        if missing:
            raise ConfigError(f"no demonstrations for the tasks with index {missing}; collect them first")
        if reducer.size > 1:
            self.portion = torch.from_numpy(has[reducer.rank] / has.sum(axis=0)).float()
        self.ready = True
        return True

    def require_ready(self) -> None:
        """Raises ConfigError where there is nothing to learn from."""
        if not self.ready:
            raise ConfigError(f"{self._owner} has no demonstrations yet; call ingest, then due, first")

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """A batch of this rank's episodes."""
        assert self._dataset is not None, "it is ready"
        return self._dataset.sample(batch_size, generator)

    def _checked(self) -> Mapping[str, torch.Tensor]:
        if self._failure is not None:
            raise self._failure
        return {}
