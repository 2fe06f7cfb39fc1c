"""The decisions of a round, by task, and minibatches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.data import Bucket
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup
from mtrl.spaces import Layout, RunningMoments

from .networks import StepBatch

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TaskSteps:
    """N decisions of one task; the observations may have more rows, those that decisions before saw."""

    seen: Mapping[str, Tensor]
    """Bucket -> [N, ...], padded."""
    fields: Mapping[str, Tensor]
    """Name -> [N, ...]: drawn, index, log_probability, advantage, time (share of the horizon that is over),
    before (row of the decision before in its episode, -1 for the first), what the policy recorded."""

    def __len__(self) -> int:
        return len(self.fields["index"])


def steps_of(
    groups: Sequence[EpisodeGroup], advantages: Sequence[Sequence[Rows]], layout: Layout, horizon: int
) -> TaskSteps:
    """The decisions of groups of one task, with an advantage array [T_e] for each episode of each group."""
    seen: dict[str, list[npt.NDArray[np.generic]]] = {}
    fields: dict[str, list[npt.NDArray[np.generic]]] = {}
    total = 0
    for group, its_advantages in zip(groups, advantages, strict=True):
        count = int(group.offsets[-1])
        # the last observation of each episode is not acted on
        acted = np.delete(np.arange(count + len(group)), group.offsets[1:] + np.arange(len(group)))
        for bucket, rows in group.observations.items():
            kept = rows[acted]
            seen.setdefault(bucket, []).append(layout.pad_state(kept) if bucket == "state" else kept)
        time = np.arange(count) - np.repeat(group.offsets[:-1], np.diff(group.offsets))
        before = np.where(time > 0, np.arange(count) - 1 + total, -1)
        found: dict[str, npt.NDArray[np.generic]] = {
            "index": group.discrete,
            "advantage": np.concatenate(list(its_advantages)).astype(np.float32),
            "time": (time / horizon).astype(np.float32),
            "before": before,
            **group.extras,
        }
        for name, values in found.items():
            fields.setdefault(name, []).append(values)
        total += count
    return TaskSteps(
        {bucket: torch.from_numpy(np.concatenate(parts)) for bucket, parts in seen.items()},
        {name: torch.from_numpy(np.concatenate(parts)) for name, parts in fields.items()},
    )


class RoundTable:
    """The decisions of a round on this rank."""

    def __init__(self, steps: Mapping[int, TaskSteps]) -> None:
        """By task, each with at least one decision."""
        self.steps = dict(sorted(steps.items()))

    @property
    def count(self) -> int:
        """Decisions of all tasks."""
        return sum(map(len, self.steps.values()))

    def minibatches(self, parts: int, draws: np.random.Generator) -> Iterator[StepBatch | None]:
        """`parts` minibatches that hold every decision once, each a share of every task; None where this rank
        has nothing.
        """
        split = {k: np.array_split(draws.permutation(len(steps)), parts) for k, steps in self.steps.items()}
        for part in range(parts):
            yield self.batch({k: rows[part] for k, rows in split.items() if len(rows[part])})

    def batch(self, rows: Mapping[int, npt.NDArray[np.int64]]) -> StepBatch | None:
        """The listed decisions of each task, padded to the longest list."""
        if not rows:
            return None
        width = max(map(len, rows.values()))
        index = {k: torch.from_numpy(np.resize(listed, width)) for k, listed in rows.items()}
        weight = torch.stack([(torch.arange(width) < len(listed)).float() for listed in rows.values()])
        tasks = list(rows)
        buckets = {}
        for bucket in {name for k in tasks for name in self.steps[k].seen}:
            held = [row for row, k in enumerate(tasks) if bucket in self.steps[k].seen]
            values = torch.stack([self.steps[tasks[row]].seen[bucket][index[tasks[row]]] for row in held])
            buckets[bucket] = Bucket(values, torch.tensor(held))
        fields = {
            name: torch.stack([self.steps[k].fields[name][index[k]] for k in tasks])
            for name in self.steps[tasks[0]].fields
        }
        return StepBatch(torch.tensor(tasks), weight, buckets, fields)

    def before(self, batch: StepBatch) -> StepBatch:
        """What came before each decision of a batch in its episode; any other decision where nothing did."""
        rows = batch.fields["before"].clamp_min(0)
        found = self.batch({k: row.numpy() for k, row in zip(batch.task.tolist(), rows, strict=True)})
        assert found is not None, "a batch holds decisions"
        return found


def gathered_moments(table: RoundTable, moments: RunningMoments, until: int, reducer: Reducer) -> bool:
    """Adds the states of all ranks' tables to the moments of tasks that have seen fewer than `until`; returns
    whether there were any. Collective.
    """
    size, rows = moments.mean.shape[1], []
    for k, steps in table.steps.items():
        if "state" in steps.seen and moments.count[k] < until:
            states = steps.seen["state"].double().numpy()
            mean = states.mean(0)
            rows.append(np.concatenate([[k, len(states)], mean, ((states - mean) ** 2).sum(0)]))
    made = np.array(rows).reshape(len(rows), 2 + 2 * size)
    found = reducer.gather(torch.from_numpy(made)).numpy()
    for row in found:
        moments.add(int(row[0]), float(row[1]), row[2 : 2 + size], row[2 + size :])
    return len(found) > 0
