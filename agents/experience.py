"""The experience of all ranks, on which they agree before an update."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.data import Batch, Bucket
from mtrl.errors import ConfigError, MtrlError, MtrlWarning
from mtrl.nn import RewardScale
from mtrl.reducer import Reducer
from mtrl.rollout import Fragment
from mtrl.spaces import Layout, Moments, RunningMoments, warn_of_constants
from mtrl.tasks import TaskSet

Row = npt.NDArray[np.float64]

GROWTH = 16.0
"""Factor by which a dimension's deviation outgrows its statistics, so that they no longer describe it."""


class Experience:
    """Steps, observation statistics and usable tasks of all ranks together.

    Every fragment leaves a row (task, steps, count, mean, squares), and each rank a row (-1, failed, sizes,
    largest returns); `agree` gathers all rows and reads them in one order, so that every rank comes to
    the same result.
    """

    def __init__(self, tasks: TaskSet, batch: int, refresh_at: Sequence[int]) -> None:
        """`batch` is a rank's samples of a task. Statistics follow every fragment until the first of
        `refresh_at`, environment steps of a task; they change at each of these, and after that when a
        dimension outgrows them. They are not kept where `refresh_at` is empty.
        """
        layout = tasks.layout
        count = layout.task_count
        self.steps = np.zeros(count, dtype=np.int64)
        """[K], environment steps of each task."""
        self.usable: list[int] = []
        """Tasks of which some rank has a batch."""
        self.own: list[int] = []
        """Those of which this rank has one."""
        self.portion: Tensor | None = None
        """[K of usable], the share of each task's samples that is this rank's; None alone."""
        self._names, self._layout, self._batch = tasks.names, layout, batch
        self._refresh = refresh_at
        self._moments = RunningMoments(count, layout.state_size)
        self._deviation = self._moments.deviation()
        """[K, D], those of the statistics in use; 0 where these see a constant."""
        self._warned: set[int] = set()
        self._rows: list[Row] = []
        self._failure: MtrlError | None = None

    def add(self, fragment: Fragment) -> None:
        """Records a fragment until ranks agree."""
        k, size = fragment.task_index, self._layout.state_size
        row = np.zeros(3 + 2 * size)
        row[:2] = k, fragment.steps
        if self._refresh and "state" in fragment.observations:
            moments = RunningMoments(1, size)
            moments.update(0, fragment.observations["state"][:-1].astype(np.float64))
            row[2], row[3 : 3 + size], row[3 + size :] = moments.count[0], moments.mean[0], moments.squares[0]
        self._rows.append(row)

    def fail(self, error: MtrlError) -> None:
        """Keeps an error until all ranks can raise it."""
        self._failure = error

    def agree(
        self, sizes: npt.NDArray[np.int64], scale: RewardScale, reducer: Reducer
    ) -> Sequence[tuple[int, Moments]]:
        """Merges the experience of all ranks; `sizes` [K] are this rank's transitions, and `scale` gets the
        largest returns of all. Returns the tasks whose statistics change, with the new ones. Raises the error
        that a rank failed with.
        """
        count, size = self._layout.task_count, self._layout.state_size
        width = max(3 + 2 * size, 2 + 2 * count)
        table = np.zeros((len(self._rows) + 1, width))
        table[0, :2] = -1.0, self._failure is not None
        table[0, 2 : 2 + count], table[0, 2 + count : 2 + 2 * count] = sizes, scale.largest
        for number, row in enumerate(self._rows, 1):
            table[number, : len(row)] = row
        self._rows = []
        rows = reducer.gather(torch.from_numpy(table)).numpy()
        ranks = rows[rows[:, 0] < 0]
        if ranks[:, 1].any():
            reducer.sums(self._raise, {})
        scale.largest[:] = ranks[:, 2 + count : 2 + 2 * count].max(axis=0)
        has = ranks[:, 2 : 2 + count] >= self._batch
        self.usable = np.flatnonzero(has.any(axis=0)).tolist()
        self.own = np.flatnonzero(has[reducer.rank]).tolist()
        if reducer.size > 1:
            here = has[:, self.usable]
            self.portion = torch.from_numpy(here[reducer.rank] / here.sum(axis=0)).float()
        before, fragments = self.steps.copy(), rows[rows[:, 0] >= 0]
        changed = [found for row in fragments if (found := self._observe(row)) is not None]
        if self._refresh and ((before < self._refresh[0]) & (self.steps >= self._refresh[0])).any():
            self._warn(scale.largest)
        return changed

    def raise_unusable(self, sizes: npt.NDArray[np.int64]) -> NoReturn:
        """Raises the ConfigError for an update without a usable task."""
        raise ConfigError(
            f"the replay of each task holds {sizes.max()} transitions at most; expected at least "
            f"{self._batch} when `due` was called, its share of a batch. Collect more before the first "
            "update (online.warmup), or lower agent.batch_size"
        )

    def _raise(self) -> Mapping[str, Tensor]:
        if self._failure is not None:
            raise self._failure
        return {}

    def _observe(self, row: Row) -> tuple[int, Moments] | None:
        """Counts steps; returns the statistics of the task where they change."""
        k, size = int(row[0]), self._layout.state_size
        before = int(self.steps[k])
        self.steps[k] = after = before + int(row[1])
        if row[2] == 0:
            return None
        self._moments.add(k, float(row[2]), row[3 : 3 + size], row[3 + size : 3 + 2 * size])
        deviation = self._moments.deviation(slice(k, k + 1))[0]
        early, due = before < self._refresh[0], any(before < at <= after for at in self._refresh)
        if not (early or due or (deviation > GROWTH * self._deviation[k]).any()):
            return None
        self._deviation[k] = deviation
        return k, self._moments.freeze(self._layout.state_mask)

    def _warn(self, largest: Row) -> None:
        """Names dimensions that did not vary, and tasks whose `largest` return [K] is 0, each task once."""
        found = self._moments.constants(self._layout.state_mask)
        seen = set(np.flatnonzero(self.steps).tolist()) - self._warned
        self._warned |= seen
        warn_of_constants({self._names[k]: found.get(k, []) for k in sorted(seen)})
        unrewarded = ", ".join(self._names[k] for k in sorted(seen) if largest[k] == 0)
        if unrewarded:
            warnings.warn(
                f"no reward other than 0 so far, and so no scale of rewards: {unrewarded}",
                MtrlWarning,
                stacklevel=2,
            )

    def shared_state(self) -> dict[str, Any]:
        """What ranks agreed on."""
        moments, deviation = self._moments.state_dict(), self._deviation.copy()
        return {"steps": self.steps.copy(), "moments": moments, "deviation": deviation}

    def local_state(self) -> dict[str, Any]:
        """What they did not agree on yet."""
        return {"rows": [row.copy() for row in self._rows]}

    def restore(self, shared: Mapping[str, Any], local: Mapping[str, Any] | None) -> None:
        """Restores both."""
        self.steps[:] = shared["steps"]
        self._moments.load_state_dict(shared["moments"])
        # before they were kept, statistics were those of the moments as they stood at the last refresh
        self._deviation = shared.get("deviation", self._moments.deviation()).copy()
        self._rows = [] if local is None else [row.copy() for row in local["rows"]]


class UpdateSchedule:
    """Updates follow steps at the replay ratio, from when the first task is usable."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._since = -1
        """Step at which updates began, or began again; -1 before."""
        self._before = 0
        """Updates done by then."""
        self._filled = 0
        """Steps that the replay took to fill at first."""
        self._fill_until = 0
        self._restored = False

    def due(self, steps: int, updates: int, usable: bool) -> int:
        """Updates that `steps` have earned beyond `updates`."""
        if steps <= 0:
            return 0
        if self._restored and not usable and (self._since >= 0 or self._fill_until > 0):
            # the replay was not saved: it fills again, under the policy learned so far
            self._since, self._fill_until = -1, steps + self._filled
        self._restored = False
        if self._since < 0:
            if not usable or steps < self._fill_until:
                return 0
            self._since, self._before = steps, updates
            self._filled = self._filled or steps
        return max(0, int(self._ratio * (steps - self._since)) - (updates - self._before))

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {
            "since": self._since, "before": self._before, "filled": self._filled, "until": self._fill_until
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restores `state_dict`."""
        self._since, self._before = state["since"], state["before"]
        self._filled, self._fill_until = state["filled"], state["until"]
        self._restored = True


def padded(batch: Batch, tasks: Sequence[int], width: int, layout: Layout) -> Batch:
    """The batch with rows of zeros, of weight 0, for those of the ascending `tasks` that it lacks."""
    count = len(tasks)
    row_of = {k: row for row, k in enumerate(tasks)}
    rows = torch.tensor([row_of[k] for k in batch.task_index.tolist()], dtype=torch.int64)

    def spread(values: Tensor, where: Tensor, total: int) -> Tensor:
        return values.new_zeros(total, *values.shape[1:]).index_copy_(0, where, values)

    # a transition has two observations, a sequence of T steps T + 1
    span = 2 if batch.weight.dim() == 2 else batch.weight.shape[1] + 1
    buckets = {}
    for name in layout.buckets:
        members = set(layout.members(name).tolist())
        filled = [row for row, k in enumerate(tasks) if k in members]
        if not filled:
            continue
        there = torch.tensor(filled, dtype=torch.int64)
        shape, kind = layout.bucket_shape(name), torch.float32 if name == "state" else torch.uint8
        values = torch.zeros(len(filled), span, width, *shape, dtype=kind)
        if name in batch.buckets:
            bucket = batch.buckets[name]
            values[torch.searchsorted(there, rows[bucket.rows])] = bucket.values
        buckets[name] = Bucket(values, there)
    return Batch(
        task_index=torch.tensor(tasks, dtype=torch.int64),
        weight=spread(batch.weight, rows, count),
        buckets=buckets,
        fields={name: spread(values, rows, count) for name, values in batch.fields.items()},
    )
