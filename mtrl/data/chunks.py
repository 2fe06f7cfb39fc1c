"""Pairs of state history and action chunk, sampled from the demonstrations of many tasks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, MtrlError
from mtrl.reducer import Reducer
from mtrl.spaces import Layout, Moments, RunningMoments

from .batch import Batch, Bucket
from .trajectories import Trajectories


class ChunkDataset:
    """Demonstrations of every task in flat tensors, sampled evenly over tasks.

    A sample is one decision: the h states up to it (the first state repeated before an episode's
    start) and the H clean actions from it on, with a mask of those inside the episode.
    """

    def __init__(
        self,
        layout: Layout,
        data: Mapping[int, Trajectories],
        history: int,
        chunk: int,
        *,
        partial: bool = False,
    ) -> None:
        """`data` maps task indices to demonstrations. Every task of the layout needs some, or with `partial`
        any task: samples of the others are padding of weight 0.
        """
        self._layout = layout
        self.present = np.array([k in data and len(data[k].labels) > 0 for k in range(layout.task_count)])
        """[K], the tasks that have demonstrations."""
        if not (self.present.any() if partial else self.present.all()):
            raise _no_demonstrations(self.present)
        self.statistics = RunningMoments(layout.task_count, layout.state_size)
        """Moments of the states of all demonstrations."""
        self._first, self._count = [0] * layout.task_count, [1] * layout.task_count
        parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        rows = decisions = 0
        for k in np.flatnonzero(self.present).tolist():
            states, windows = layout.pad_state(data[k].observations["state"]), data[k].windows(history, chunk)
            labels = layout.pad_continuous(data[k].labels)
            self.statistics.update(k, states)
            parts.append(
                (
                    states,
                    windows.observation_rows + rows,
                    labels,
                    windows.action_rows + decisions,
                    windows.real,
                )
            )
            self._first[k], self._count[k] = decisions, len(labels)
            rows, decisions = rows + len(states), decisions + len(labels)
        self._states, self._rows, self._labels, self._windows, real = (
            torch.as_tensor(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)
        )
        self._real = real.float()

    def __len__(self) -> int:
        return len(self._labels)

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """A batch of about `batch_size`, spread evenly: K tasks, ceil(batch_size / K) samples each."""
        share = -(-batch_size // self._layout.task_count)
        bounds = zip(self._first, self._count, strict=True)
        return self.gather(
            np.stack([first + generator.integers(count, size=share) for first, count in bounds])
        )

    def gather(self, picked: npt.NDArray[np.int64]) -> Batch:
        """The batch of decisions `picked` [K, B]; row k holds decisions of task k."""
        index = torch.as_tensor(picked)
        tasks = torch.arange(len(picked))
        weight = torch.ones(index.shape)
        weight[torch.from_numpy(~self.present)] = 0.0
        return Batch(
            task_index=tasks,
            weight=weight,
            buckets={"state": Bucket(self._states[self._rows[index]], tasks)},
            fields={"chunk": self._labels[self._windows[index]], "real": self._real[index]},
        )

    @property
    def moments(self) -> Moments:
        """The statistics for use."""
        return self.statistics.freeze(self._layout.state_mask)


class RankDataset:
    """A `ChunkDataset` of this rank's episodes, ready once all ranks have theirs."""

    def __init__(self, layout: Layout, history: int, chunk: int, ranks: int, owner: str) -> None:
        """`owner` is what learns from it, for messages."""
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
        """Moments of the states of all ranks."""
        return self._statistics.freeze(self._layout.state_mask)

    @property
    def constants(self) -> dict[int, list[int]]:
        """Task -> the dimensions of its states that are constant, on all ranks."""
        return self._statistics.constants(self._layout.state_mask)

    def ingest(self, data: Mapping[int, Trajectories]) -> None:
        """Takes demonstrations by task. Raises ConfigError for a task without any; of several ranks one may
        lack some, and `agree` raises on all of them what is wrong on one.
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
        assert self._dataset is not None, "`_checked` must raise where a rank has no dataset"
        self._statistics, counts = merged_moments(self._dataset.statistics, reducer)
        has = counts > 0
        holders = has.sum(axis=0)
        if not holders.all():
            raise _no_demonstrations(holders > 0)
        if reducer.size > 1:
            # portion_k = 1 / R_k on each of the R_k ranks that hold demonstrations of task k
            self.portion = torch.from_numpy(has[reducer.rank] / holders).float()
        self.ready = True
        return True

    def require_ready(self) -> None:
        """Raises ConfigError where there is nothing to learn from."""
        if not self.ready:
            raise ConfigError(f"{self._owner} has no demonstrations yet; call ingest, then due, first")

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """A batch of this rank's episodes."""
        assert self._dataset is not None, "`require_ready` must come before `sample`"
        return self._dataset.sample(batch_size, generator)

    def _checked(self) -> Mapping[str, torch.Tensor]:
        if self._failure is not None:
            raise self._failure
        return {}


def merged_moments(own: RunningMoments, reducer: Reducer) -> tuple[RunningMoments, npt.NDArray[np.float64]]:
    """Moments of the observations of all ranks, and how many each has: [R, K]. Collective."""
    count, size = own.mean.shape
    rows = np.concatenate([own.count[:, None], own.mean, own.squares], axis=1)
    gathered = reducer.gather(torch.from_numpy(rows)).numpy().reshape(reducer.size, count, -1)
    found = RunningMoments(count, size)
    for rank in gathered:
        for k in np.flatnonzero(rank[:, 0]).tolist():
            found.add(k, float(rank[k, 0]), *np.split(rank[k, 1:], 2))
    return found, gathered[:, :, 0]


def _no_demonstrations(present: npt.NDArray[np.bool_]) -> ConfigError:
    missing = np.flatnonzero(~present).tolist()
    return ConfigError(f"no demonstrations for the tasks with index {missing}; collect them first")
