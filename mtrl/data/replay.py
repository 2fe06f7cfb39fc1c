"""Replay by task: transitions in rings that store every observation once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError
from mtrl.rollout import Extra, Fragment
from mtrl.spaces import Layout, Observation
from mtrl.tasks import TaskSet

from .batch import Batch, Bucket
from .config import ReplayConfig
from .replay_ring import ReplayRing, ring_bytes
from .replay_split import split_replays
from .storage import CommitRecord, MappedStorage
from .trajectories import Trajectories

FIELDS = ("continuous", "discrete", "reward", "terminated", "truncated")
"""The fields of every batch of a replay, apart from extras."""


@dataclass(frozen=True)
class _Selection:
    """Data that depends only on the tasks of a batch, cached for the next batch of the same tasks."""

    rows: tuple[int, ...]
    """Task index of each row of the batch."""
    places: dict[str, dict[int, int]]
    """Bucket that some task fills -> row of the batch -> row of the bucket."""

    @staticmethod
    def of(layout: Layout, rows: tuple[int, ...]) -> _Selection:
        filled = {
            b: [i for i, k in enumerate(rows) if b in layout.observations[k].buckets] for b in layout.buckets
        }
        return _Selection(rows, {b: {i: at for at, i in enumerate(own)} for b, own in filled.items() if own})

    @cached_property
    def task_index(self) -> torch.Tensor:
        return torch.tensor(self.rows, dtype=torch.int64)

    @cached_property
    def bucket_rows(self) -> dict[str, torch.Tensor]:
        return {b: torch.tensor(list(own)) for b, own in self.places.items()}


Arrays = dict[str, npt.NDArray[Any]]


class Replay:
    """Transitions of every task, sampled task-major.

    Targets bootstrap through truncation: `terminated` and `truncated` are fields of their own. Sampling
    depends on the contents and the generator alone, so that a restored replay samples the same.
    """

    def __init__(
        self,
        tasks: TaskSet,
        config: ReplayConfig,
        extras: Sequence[Extra] = (),
        storage: MappedStorage | None = None,
    ) -> None:
        """One ring per task, in memory unless `storage` keeps the arrays in files.

        `extras` of the policy that collects: those that are `replayed` are stored, and fields of every batch.
        Raises ConfigError for one that is called as another field is.

        In files the replay is as it was at the last `commit`; what was stored after it is dropped.
        """
        self._tasks, self._layout, self._config = tasks, tasks.layout, config
        self._extras = tuple(extra for extra in extras if extra.replayed)
        taken = sorted({extra.name for extra in self._extras} & set(FIELDS))
        if taken:
            raise ConfigError(
                f"a replayed extra is a field of the batch; choose another name than {taken[0]!r}"
            )
        self._rings = [
            ReplayRing(self._layout, k, config.capacity, self._extras, storage) for k in range(len(tasks))
        ]
        self.record = None if storage is None else CommitRecord(storage, len(tasks))
        """What was committed; None in memory."""
        self.reopened = self.record is not None and self.record.number > 0
        """Whether it holds what an earlier process committed, which no checkpoint is newer than."""
        if self.record is not None:
            for ring, written in zip(self._rings, self.record.written.tolist(), strict=True):
                ring.drop_after(written)
        self._demonstrations: dict[int, ReplayRing] = {}
        self._selection: _Selection | None = None

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[K], transitions that can be sampled now, demonstrations not counted."""
        return np.array([ring.size for ring in self._rings], dtype=np.int64)

    def add(self, fragment: Fragment) -> None:
        """Stores a fragment.

        Raises DivergenceError, before anything is stored, naming the task and the tensor that is not finite.
        """
        self._require_finite(fragment)
        self._rings[fragment.task_index].add(fragment)

    def commit(self, number: int, steps: int) -> None:
        """Makes all that is stored survive this process, as fragments up to `number` of `steps` steps."""
        assert self.record is not None, "a replay in memory commits nothing"
        self.record.commit(number, steps, np.array([ring.written for ring in self._rings], dtype=np.int64))

    def add_demonstrations(self, demonstrations: Mapping[int, Trajectories]) -> None:
        """Keeps demonstrations apart, so that none is ever overwritten; replaces earlier ones."""
        for k, found in demonstrations.items():
            ring = ReplayRing(self._layout, k, found.step_count + found.episode_count, self._extras)
            ring.add_trajectories(found)
            self._demonstrations[k] = ring

    def sample(
        self, batch_size: int, generator: np.random.Generator, tasks: Sequence[int] | None = None
    ) -> Batch:
        """`batch_size` transitions of each task, drawn uniformly with replacement.

        Buckets are [K_b, 2, B, ...]: what a decision saw and its true successor. Fields: `continuous`
        [K, B, A_max], `discrete` [K, B], `reward` [K, B], `terminated` and `truncated` [K, B] bool, and the
        extras [K, B, *shape]. Rows are the tasks in ascending order, all by default. Raises ConfigError for
        a task that has fewer transitions than its share of the batch.
        """
        selection, seen, fields, weight = self._drawn(batch_size, 1, generator, tasks)
        return _batch(selection, seen, {name: values[:, 0] for name, values in fields.items()}, weight[:, 0])

    def sample_sequences(
        self, batch_size: int, length: int, generator: np.random.Generator, tasks: Sequence[int] | None = None
    ) -> Batch:
        """`batch_size` sequences of at most T = `length` decisions of each task.

        The first decision is drawn uniformly with replacement over all that are stored, so that short
        episodes and last steps come as often as others; the rest follow it within the episode. Buckets are
        [K_b, T + 1, B, ...], the true successor of the last decision included. Fields as of `sample`, but
        [K, T, B, ...]; weight [K, T, B] is 0 past the end of the episode or of what is stored, where
        observations and fields are zero and extras are filled. Raises as `sample` does.
        """
        if length < 1:
            raise OutOfRangeError("length", length, "at least 1 decision")
        return _batch(*self._drawn(batch_size, length, generator, tasks))

    def _drawn(
        self, batch_size: int, length: int, generator: np.random.Generator, tasks: Sequence[int] | None
    ) -> tuple[_Selection, Arrays, Arrays, npt.NDArray[np.float32]]:
        """Buckets, fields and weight as of `sample_sequences`."""
        rows = tuple(range(len(self._rings))) if tasks is None else tuple(sorted(set(tasks)))
        layout, shape = self._layout, (len(rows), length, batch_size)
        if self._selection is None or self._selection.rows != rows:
            self._selection = _Selection.of(layout, rows)
        selection = self._selection
        seen: Arrays = {
            b: np.zeros(
                (len(own), length + 1, batch_size, *layout.bucket_shape(b)), dtype=layout.bucket_dtype(b)
            )
            for b, own in selection.places.items()
        }
        fields: Arrays = {
            "continuous": np.zeros((*shape, layout.continuous_size), dtype=np.float32),
            "discrete": np.zeros(shape, dtype=np.int64),
            "reward": np.zeros(shape, dtype=np.float32),
            "terminated": np.zeros(shape, dtype=bool),
            "truncated": np.zeros(shape, dtype=bool),
            **{extra.name: extra.filled(*shape) for extra in self._extras},
        }
        weight, padded = np.ones(shape, dtype=np.float32), False
        for i, k in enumerate(rows):
            for ring, part in self._shares(k, batch_size):
                chosen = ring.follow(ring.draw(part.stop - part.start, generator), length)
                for bucket, arrays in seen.items():
                    place = selection.places[bucket].get(i)
                    if place is not None:
                        ring.observe(bucket, chosen.seen, arrays[place][:, part])
                places = chosen.places
                ring.act(places, fields["continuous"][i, :, part], fields["discrete"][i, :, part])
                for name, rows_of in ring.fields.items():
                    fields[name][i, :, part] = rows_of.take(places, axis=0)
                if chosen.real is not None:
                    weight[i, :, part], padded = chosen.real, True
        if padded:
            # w = 1 on real decisions and 0 past the end of an episode, or of what is stored
            padding = weight == 0.0
            for name in FIELDS:
                fields[name][padding] = 0
            for extra in self._extras:
                fields[extra.name][padding] = extra.filled()
            for bucket, own in selection.places.items():
                # the observation after a real decision is real
                seen[bucket][:, 1:][padding[list(own)]] = 0
        return selection, seen, fields, weight

    def state_dict(self) -> dict[str, Any]:
        """All rings but those of demonstrations, which are stored apart from the run and added again."""
        return {"rings": [ring.state_dict() for ring in self._rings]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a replay of the same tasks and capacity."""
        for ring, saved in zip(self._rings, state["rings"], strict=True):
            ring.load_state_dict(saved)

    def load_part(self, states: Sequence[Mapping[str, Any]], part: int, parts: int) -> None:
        """Takes its part of what replays of the same tasks held; see `split_replays`."""
        self.load_state_dict(split_replays(states, part, parts, self._config.capacity))

    def _shares(self, k: int, count: int) -> list[tuple[ReplayRing, slice]]:
        """The rings of a batch, with the places that each fills."""
        ring, demonstrations = self._rings[k], self._demonstrations.get(k)
        # RLPD: a fixed share of the batch is demonstrations
        own = count - (round(count * self._config.demonstrations) if demonstrations is not None else 0)
        if ring.size < own:
            raise ConfigError(
                f"the replay of task {self._tasks[k].name} holds {ring.size} transitions; expected at least "
                f"{own}, its share of a batch. Collect more before the first update "
                "(online.warmup), or lower agent.batch_size"
            )
        shares = [(ring, slice(0, own))]
        if demonstrations is not None and own < count:
            shares.append((demonstrations, slice(own, count)))
        return shares

    def _require_finite(self, fragment: Fragment) -> None:
        arrays: Observation = {"reward": fragment.reward, "action": fragment.continuous}
        if "state" in fragment.observations:
            arrays["observation 'state'"] = fragment.observations["state"]
            arrays["final observation 'state'"] = fragment.final_observations["state"]
        for name, values in arrays.items():
            finite = np.isfinite(values)
            if not finite.all():
                place = np.argwhere(~finite)[0].tolist()
                raise DivergenceError(
                    f"task {self._tasks[fragment.task_index].name}",
                    fragment.policy_version.number,
                    f"{name} holds {values[tuple(place)]} at {place} of the fragment of episodes "
                    f"{sorted(set(fragment.episode_id.ravel().tolist()))[:4]}",
                )


def replay_bytes(tasks: TaskSet, config: ReplayConfig) -> int:
    """Memory of a full replay, demonstrations and extras not counted."""
    return sum(ring_bytes(tasks.layout, k, config.capacity) for k in range(len(tasks)))


def _batch(selection: _Selection, seen: Arrays, fields: Arrays, weight: npt.NDArray[np.float32]) -> Batch:
    return Batch(
        task_index=selection.task_index,
        weight=torch.from_numpy(weight),
        buckets={b: Bucket(torch.from_numpy(values), selection.bucket_rows[b]) for b, values in seen.items()},
        fields={name: torch.from_numpy(values) for name, values in fields.items()},
    )
