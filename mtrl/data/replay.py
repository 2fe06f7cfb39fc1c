"""Replay by task: what was lived, in rings that store every observation once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError
from mtrl.rollout import Fragment
from mtrl.spaces import Layout, Observation
from mtrl.tasks import TaskSet

from .batch import Batch, Bucket
from .replay_ring import ReplayRing, ring_bytes
from .trajectories import Trajectories


@dataclass(frozen=True)
class ReplayConfig:
    """How much is kept, and what is mixed in."""

    capacity: int = 100_000
    """Observations kept of every task, at least 2; the oldest go first."""
    save: bool = True
    """Write the replay into checkpoints. Without it a resumed run collects anew before it learns."""
    demonstrations: float = 0.0
    """Share of each batch that comes from demonstrations, 0 (none are needed) to below 1; 0.5 is RLPD (Ball
    et al. 2023). A task without demonstrations fills its share from what it lived."""

    def __post_init__(self) -> None:
        if self.capacity < 2:
            raise OutOfRangeError("replay.capacity", self.capacity, "at least 2 observations")
        if not 0.0 <= self.demonstrations < 1.0:
            raise OutOfRangeError("replay.demonstrations", self.demonstrations, "0 to below 1")


@dataclass(frozen=True)
class _Asked:
    """What follows from the tasks of a batch alone, kept while batches hold the same."""

    rows: tuple[int, ...]
    task_index: torch.Tensor
    places: dict[str, dict[int, int]]
    """Bucket that some task fills -> row of the batch -> row of the bucket."""
    filled: dict[str, torch.Tensor]

    @staticmethod
    def of(layout: Layout, rows: tuple[int, ...]) -> _Asked:
        members = {
            b: [i for i, k in enumerate(rows) if b in layout.observations[k].buckets] for b in layout.buckets
        }
        members = {b: where for b, where in members.items() if where}
        return _Asked(
            rows,
            torch.tensor(rows, dtype=torch.int64),
            {b: {i: place for place, i in enumerate(where)} for b, where in members.items()},
            {b: torch.tensor(where) for b, where in members.items()},
        )


class Replay:
    """Transitions of every task, sampled task-major.

    Targets bootstrap through truncation: `terminated` and `truncated` are fields of their own. Sampling
    depends on the contents and the generator alone, so that a restored replay samples the same.
    """

    def __init__(self, tasks: TaskSet, config: ReplayConfig) -> None:
        """Allocates one ring per task; the operating system hands out the memory as it fills."""
        self._tasks, self._layout, self._config = tasks, tasks.layout, config
        self._rings = [ReplayRing(self._layout, k, config.capacity) for k in range(len(tasks))]
        self._demonstrations: dict[int, ReplayRing] = {}
        self._asked: _Asked | None = None

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[K], transitions that can be sampled now, demonstrations not counted."""
        return np.array([ring.size for ring in self._rings], dtype=np.int64)

    def add(self, fragment: Fragment) -> None:
        """Takes in a fragment.

        Raises DivergenceError, before anything is stored, naming the task and the tensor that is not finite.
        """
        self._require_finite(fragment)
        self._rings[fragment.task_index].add(fragment)

    def add_demonstrations(self, demonstrations: Mapping[int, Trajectories]) -> None:
        """Keeps demonstrations apart, so that none is ever overwritten; replaces earlier ones."""
        for k, found in demonstrations.items():
            ring = ReplayRing(self._layout, k, found.step_count + found.episode_count)
            ring.add_trajectories(found)
            self._demonstrations[k] = ring

    def sample(
        self, batch_size: int, generator: np.random.Generator, tasks: Sequence[int] | None = None
    ) -> Batch:
        """`batch_size` transitions of each task, drawn uniformly with replacement.

        Buckets are [K_b, 2, B, ...]: what a decision saw and its true successor. Fields: `continuous`
        [K, B, A_max], `discrete` [K, B], `reward` [K, B], `terminated` and `truncated` [K, B] bool. Rows
        are the tasks in ascending order, all by default. Raises ConfigError for a task that has fewer
        transitions than its share of the batch.
        """
        rows = tuple(range(len(self._rings))) if tasks is None else tuple(sorted(set(tasks)))
        layout, count = self._layout, batch_size
        if self._asked is None or self._asked.rows != rows:
            self._asked = _Asked.of(layout, rows)
        asked = self._asked
        seen = {
            b: np.zeros((len(where), 2, count, *layout.bucket_shape(b)), dtype=layout.bucket_dtype(b))
            for b, where in asked.places.items()
        }
        continuous = np.zeros((len(rows), count, layout.continuous_size), dtype=np.float32)
        discrete = np.zeros((len(rows), count), dtype=np.int64)
        reward = np.zeros((len(rows), count), dtype=np.float32)
        terminated = np.zeros((len(rows), count), dtype=bool)
        truncated = np.zeros((len(rows), count), dtype=bool)
        for i, k in enumerate(rows):
            for ring, part in self._shares(k, count):
                chosen = ring.draw(part.stop - part.start, generator)
                for bucket, arrays in seen.items():
                    place = asked.places[bucket].get(i)
                    if place is not None:
                        ring.observe(bucket, chosen, arrays[place][:, part])
                ring.act(chosen, continuous[i, part], discrete[i, part])
                reward[i, part] = ring.reward[chosen]
                terminated[i, part] = ring.terminated[chosen]
                truncated[i, part] = ring.truncated[chosen]
        fields = {
            "continuous": continuous,
            "discrete": discrete,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
        }
        return Batch(
            task_index=asked.task_index,
            weight=torch.ones(len(rows), count),
            buckets={b: Bucket(torch.from_numpy(values), asked.filled[b]) for b, values in seen.items()},
            fields={name: torch.from_numpy(values) for name, values in fields.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        """What was lived; demonstrations are stored beside the run and added again."""
        return {"rings": [ring.state_dict() for ring in self._rings]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a replay of the same tasks and capacity."""
        for ring, saved in zip(self._rings, state["rings"], strict=True):
            ring.load_state_dict(saved)

    def _shares(self, k: int, count: int) -> list[tuple[ReplayRing, slice]]:
        """Which ring fills which places of the batch."""
        ring, shown = self._rings[k], self._demonstrations.get(k)
        lent = round(count * self._config.demonstrations) if shown is not None else 0
        if ring.size < count - lent:
            raise ConfigError(
                f"the replay of task {self._tasks[k].name} holds {ring.size} transitions; expected at least "
                f"{count - lent}, its share of a batch. Collect more before the first update "
                "(online.warmup), or lower agent.batch_size"
            )
        shares = [(ring, slice(0, count - lent))]
        return shares if shown is None or not lent else [*shares, (shown, slice(count - lent, count))]

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
    """Memory of a full replay, demonstrations not counted."""
    return sum(ring_bytes(tasks.layout, k, config.capacity) for k in range(len(tasks)))
