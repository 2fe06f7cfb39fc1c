"""Pairs of state history and action chunk, sampled from the demonstrations of many tasks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, MtrlError
from mtrl.reducer import Reducer
from mtrl.spaces import Moments, RunningMoments
from mtrl.tasks import TaskSet

from .batch import Batch, Bucket
from .trajectories import Trajectories


class ChunkDataset:
    """Demonstrations of every task in flat tensors, sampled evenly over tasks.

    A sample is one decision: the h states up to it (the first state repeated before an episode's
    start) and the H clean actions from it on, with a mask of those inside the episode.
    """

    def __init__(
        self,
        tasks: TaskSet,
        data: Mapping[int, Trajectories],
        history: int,
        chunk: int,
        *,
        stride: int = 0,
        partial: bool = False,
    ) -> None:
        """`data` maps task indices to demonstrations. Every task needs some, or with `partial`
        any task: samples of the others are padding of weight 0. With a `stride` samples have the states that
        follow after so many decisions each.
        """
        self._layout = layout = tasks.layout
        self.present = np.array([k in data and len(data[k].labels) > 0 for k in range(layout.task_count)])
        """[K], the tasks that have demonstrations."""
        if not (self.present.any() if partial else self.present.all()):
            raise _no_demonstrations(tasks, self.present)
        self.statistics = RunningMoments(layout.task_count, layout.state_size)
        """Moments of the states of all demonstrations."""
        self._first, self._count = [0] * layout.task_count, [1] * layout.task_count
        self._lengths = {k: data[k].lengths for k in np.flatnonzero(self.present).tolist()}
        self._quality: torch.Tensor | None = None
        self._future: tuple[torch.Tensor, torch.Tensor] | None = None
        future: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]] = []
        parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        rows = decisions = 0
        for k in np.flatnonzero(self.present).tolist():
            states, windows = layout.pad_state(data[k].observations["state"]), data[k].windows(history, chunk)
            labels = layout.pad_continuous(data[k].labels)
            self.statistics.update(k, states)
            if stride:
                ahead, there = data[k].future(chunk, stride)
                future.append((ahead + rows, there))
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
        if stride:
            followed, real = (torch.as_tensor(np.concatenate(arrays)) for arrays in zip(*future, strict=True))
            self._future = (followed, real.float())

    def set_quality(self, quality: Mapping[int, npt.NDArray[np.float64]]) -> None:
        """Gives every sample how good its episode is: task -> [E], 0 to 1."""
        decisions = [np.repeat(quality[k], lengths) for k, lengths in self._lengths.items()]
        self._quality = torch.as_tensor(np.concatenate(decisions)).float()

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
        fields = {"chunk": self._labels[self._windows[index]], "real": self._real[index]}
        if self._future is not None:
            ahead, there = self._future
            fields |= {"future": self._states[ahead[index]], "future_real": there[index]}
        if self._quality is not None:
            fields["quality"] = self._quality[index]
        return Batch(
            task_index=tasks,
            weight=weight,
            buckets={"state": Bucket(self._states[self._rows[index]], tasks)},
            fields=fields,
        )

    @property
    def moments(self) -> Moments:
        """The statistics for use."""
        return self.statistics.freeze(self._layout.state_mask)


class RankDataset:
    """A `ChunkDataset` of this rank's episodes, ready once all ranks have theirs."""

    def __init__(
        self, tasks: TaskSet, history: int, chunk: int, ranks: int, owner: str, stride: int = 0
    ) -> None:
        """`owner` is what learns from it, for messages; `stride` as of `ChunkDataset`."""
        self.ready = False
        """Whether all ranks agreed that they have demonstrations."""
        self.portion: torch.Tensor | None = None
        """[K], the share of each task's samples that is this rank's; None alone."""
        self._tasks, self._layout = tasks, tasks.layout
        self._history, self._chunk, self._stride = history, chunk, stride
        self._returns: Mapping[int, npt.NDArray[np.float64]] | None = None
        self._ranks, self._owner = ranks, owner
        self._dataset: ChunkDataset | None = None
        self._failure: MtrlError | None = None
        self._statistics = RunningMoments(tasks.layout.task_count, tasks.layout.state_size)

    @property
    def moments(self) -> Moments:
        """Moments of the states of all ranks."""
        return self._statistics.freeze(self._layout.state_mask)

    @property
    def constants(self) -> dict[int, list[int]]:
        """Task -> the dimensions of its states that are constant, on all ranks."""
        return self._statistics.constants(self._layout.state_mask)

    def ingest(
        self,
        data: Mapping[int, Trajectories],
        returns: Mapping[int, npt.NDArray[np.float64]] | None = None,
    ) -> None:
        """Takes demonstrations by task, and the return of each episode where samples have a `quality`: its
        rank among those of the task on all ranks, 0 to 1. Raises ConfigError for a task without any; of
        several ranks one may lack some, and `agree` raises on all of them what is wrong on one.
        """
        self._returns = returns
        try:
            self._dataset = ChunkDataset(
                self._tasks,
                data,
                self._history,
                self._chunk,
                stride=self._stride,
                partial=self._ranks > 1,
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
            raise _no_demonstrations(self._tasks, holders > 0)
        if reducer.size > 1:
            # portion_k = 1 / R_k on each of the R_k ranks that hold demonstrations of task k
            self.portion = torch.from_numpy(has[reducer.rank] / holders).float()
        if self._returns is not None:
            self._rank_returns(reducer)
        self.ready = True
        return True

    def _rank_returns(self, reducer: Reducer) -> None:
        """Says how good every episode is; raises ConfigError on all ranks where returns of a task are all
        equal. Collective.
        """
        assert self._returns is not None and self._dataset is not None, "every rank has demonstrations"
        own = [
            np.stack([np.full(len(values), float(k)), values], axis=1) for k, values in self._returns.items()
        ]
        everyone = reducer.gather(torch.from_numpy(np.concatenate(own))).numpy()
        groups = [everyone[everyone[:, 0] == k, 1] for k in range(self._layout.task_count)]
        if alike := [k for k, v in enumerate(groups) if np.ptp(v) <= 1e-9 * np.abs(v).max()]:
            named = ", ".join(self._tasks.names[k] for k in alike)
            raise ConfigError(
                f"{self._owner} tells episodes apart by their returns, and those of {named} are all equal; "
                "collect some of worse quality (demonstrations.mixture), or learn without returns "
                "(agent.returns.dropout=0)"
            )
        of_task = {k: np.sort(groups[k]) for k in self._returns}
        self._dataset.set_quality({k: _share_below(of_task[k], v) for k, v in self._returns.items()})

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


def _share_below(
    ascending: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The share of `ascending` that is below each value, half of what is equal to it included."""
    below, up_to = (np.searchsorted(ascending, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2.0 * len(ascending)))


def _no_demonstrations(tasks: TaskSet, present: npt.NDArray[np.bool_]) -> ConfigError:
    missing = [name for name, there in zip(tasks.names, present, strict=True) if not there]
    return ConfigError(
        f"there is no demonstration of {', '.join(missing)} to learn from, or none that succeeded; "
        "collect some with `mtrl collect`"
    )
