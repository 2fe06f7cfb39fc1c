"""Sampling (state history, action chunk) pairs of many tasks from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError
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
        missing = [k for k in range(layout.task_count) if k not in data or not len(data[k].labels)]
        if missing and not (partial and len(missing) < layout.task_count):
            raise ConfigError(f"no demonstrations for the tasks with index {missing}; collect them first")
        self._layout, self._history, self._chunk = layout, history, chunk
        self.present = np.array([k not in missing for k in range(layout.task_count)])
        """[K], the tasks that have demonstrations."""
        self.statistics = self._observed({k: part for k, part in data.items() if k not in missing})
        """Of the states of all demonstrations."""
        states, rows, labels, starts, real = [], [], [], [], []
        row_base = label_base = 0
        self._first, self._count = [], []
        for k in range(layout.task_count):
            if not self.present[k]:
                self._first.append(0)
                self._count.append(1)
                continue
            task_data = data[k]
            padded = np.zeros((len(task_data.observations["state"]), layout.state_size), dtype=np.float32)
            padded[:, : task_data.observations["state"].shape[1]] = task_data.observations["state"]
            windows = task_data.windows(history, chunk)
            states.append(padded)
            rows.append(windows.observation_rows + row_base)
            starts.append(windows.action_rows + label_base)
            real.append(windows.real)
            labels.append(layout.pad_continuous(task_data.labels))
            self._first.append(label_base)
            self._count.append(len(task_data.labels))
            row_base += len(padded)
            label_base += len(task_data.labels)
        self._states = torch.as_tensor(np.concatenate(states))
        self._rows = torch.as_tensor(np.concatenate(rows))
        self._labels = torch.as_tensor(np.concatenate(labels))
        self._windows = torch.as_tensor(np.concatenate(starts))
        self._real = torch.as_tensor(np.concatenate(real)).float()

    def __len__(self) -> int:
        return len(self._labels)

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """A batch of about `batch_size`, spread evenly: K tasks, ceil(batch_size / K) samples each."""
        count = self._layout.task_count
        share = -(-batch_size // count)
        picked = np.stack(
            [self._first[k] + generator.integers(self._count[k], size=share) for k in range(count)]
        )
        return self.gather(picked)

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

    def _observed(self, data: Mapping[int, Trajectories]) -> RunningMoments:
        moments = RunningMoments(self._layout.task_count, self._layout.state_size)
        for k, task_data in data.items():
            native = task_data.observations["state"]
            padded = np.zeros((len(native), self._layout.state_size))
            padded[:, : native.shape[1]] = native
            moments.update(k, padded)
        return moments
