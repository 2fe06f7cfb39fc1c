"""The ring of one task: a flat ring of observations, and which of them begin a transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.rollout import Fragment
from mtrl.spaces import Layout, Observation

from .trajectories import Trajectories


class ReplayRing:
    """Observations of one task in its own, unpadded sizes; each is stored once.

    A row holds an observation and, where a decision was made on it, the action, what came of it, and the
    row of the true successor. Rows are numbered as they are written, and a successor has a higher number
    than its predecessor: when the ring overwrites a row, every transition into it is gone already. The
    last row of a fragment waits for its decision, which the next fragment of that copy brings; the two
    are joined by content, so that lanes may be dealt, lost and reopened as they please.
    """

    def __init__(self, layout: Layout, task_index: int, capacity: int) -> None:
        """`capacity` counts observations."""
        self._layout, self._task_index, self._capacity = layout, task_index, capacity
        spec, action = layout.observations[task_index], layout.actions[task_index]
        self._observations: Observation = {}
        if spec.state is not None:
            self._observations["state"] = np.zeros((capacity, spec.state), dtype=np.float32)
        if spec.pixels is not None:
            self._observations["pixels"] = np.zeros((capacity, *spec.pixels), dtype=np.uint8)
        self._width = action.continuous
        self.continuous = np.zeros((capacity, self._width), dtype=np.float32)
        self.discrete = np.zeros(capacity if action.is_discrete else 0, dtype=np.int32)
        self.reward = np.zeros(capacity, dtype=np.float32)
        self.terminated = np.zeros(capacity, dtype=bool)
        self.truncated = np.zeros(capacity, dtype=bool)
        self._successor = np.zeros(capacity, dtype=np.int64)
        self._begins = np.zeros(capacity, dtype=bool)
        self._written = 0
        self._waiting: dict[bytes, list[int]] = {}
        self._candidates: npt.NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """Transitions that can be drawn."""
        return len(self._drawable())

    def add(self, fragment: Fragment) -> None:
        """Takes in every copy of a fragment; raises ConfigError when one copy alone exceeds the ring."""
        rows = {b: self._native(b, fragment.observations[b]) for b in self._observations}
        finals = {b: self._native(b, fragment.final_observations[b]) for b in self._observations}
        steps, copies = fragment.reward.shape
        for copy in range(copies):
            ends = np.flatnonzero(fragment.final_index[:, 1] == copy)
            first = self._joined(self._key(rows, copy), steps + len(ends))
            skipped = int(first is not None)
            block = {b: np.concatenate([rows[b][skipped:, copy], finals[b][ends]]) for b in rows}
            begin = self._append(block)
            numbers = begin - skipped + np.arange(steps + 1)
            if first is not None:
                numbers[0] = first
            following = numbers[1:].copy()
            following[fragment.final_index[ends, 0]] = begin + steps + 1 - skipped + np.arange(len(ends))
            self._decide(
                numbers[:-1],
                following,
                fragment.continuous[:, copy] if self._width else fragment.discrete[:, copy],
                fragment.reward[:, copy],
                fragment.terminated[:, copy],
                fragment.truncated[:, copy],
            )
            self._waiting.setdefault(self._key(rows, copy, -1), []).append(int(numbers[-1]))

    def add_trajectories(self, data: Trajectories) -> None:
        """Takes in whole episodes, which the ring must have room for."""
        begin = self._append({b: data.observations[b] for b in self._observations})
        episode = np.repeat(np.arange(data.episode_count), data.lengths)
        numbers = begin + np.arange(data.step_count) + episode
        self._decide(numbers, numbers + 1, data.actions, data.rewards, data.terminated, data.truncated)

    def draw(self, count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """[count], places of transitions, uniform with replacement."""
        candidates = self._drawable()
        return candidates[generator.integers(0, len(candidates), size=count)]

    def observe(self, bucket: str, places: npt.NDArray[np.int64], out: npt.NDArray[np.generic]) -> None:
        """Writes what the decisions at `places` [B] saw and their successors to `out` [2, B, ...], padded."""
        rows = self._observations[bucket]
        if bucket == "state":
            out = out[..., : rows.shape[1]]
        out[0] = rows[places]
        out[1] = rows[self._successor[places]]

    def act(
        self,
        places: npt.NDArray[np.int64],
        continuous: npt.NDArray[np.float32],
        discrete: npt.NDArray[np.int64],
    ) -> None:
        """Writes the actions of `places` [B] to `continuous` [B, A_max] and `discrete` [B]."""
        if self._width:
            continuous[:, : self._width] = self.continuous[places]
        else:
            discrete[:] = self.discrete[places]

    def state_dict(self) -> dict[str, Any]:
        """The rows in use and how far they were written."""
        used = min(self._written, self._capacity)
        return {
            "written": self._written,
            "waiting": [number for numbers in self._waiting.values() for number in numbers],
            "arrays": {name: rows[:used].copy() for name, rows in self._arrays().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; raises ConfigError for a ring of another capacity."""
        used = len(state["arrays"]["reward"])
        if used > self._capacity or (used < self._capacity and used < state["written"]):
            raise ConfigError(
                f"the saved replay is a ring of {used} observations, this one of {self._capacity}; "
                "resume with the same agent.replay.capacity"
            )
        for name, rows in self._arrays().items():
            rows[:used] = state["arrays"][name]
        self._written = int(state["written"])
        self._waiting, self._candidates = {}, None
        for number in state["waiting"]:
            slot = {b: rows[number % self._capacity][None, None] for b, rows in self._observations.items()}
            self._waiting.setdefault(self._key(slot, 0), []).append(int(number))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            **{f"observations.{bucket}": rows for bucket, rows in self._observations.items()},
            "continuous": self.continuous,
            **({"discrete": self.discrete} if not self._width else {}),
            "reward": self.reward,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "successor": self._successor,
            "begins": self._begins,
        }

    def _native(self, bucket: str, padded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return self._layout.native_state(self._task_index, padded) if bucket == "state" else padded

    def _key(self, rows: Observation, copy: int, t: int = 0) -> bytes:
        return b"".join(rows[bucket][t, copy].tobytes() for bucket in sorted(rows))

    def _joined(self, key: bytes, fresh: int) -> int | None:
        """The number of the row that waits with this content and survives `fresh` more rows."""
        oldest = self._written + fresh - self._capacity
        alive = {k: [n for n in numbers if n >= oldest] for k, numbers in self._waiting.items()}
        self._waiting = {k: numbers for k, numbers in alive.items() if numbers}
        numbers = self._waiting.get(key)
        if not numbers:
            return None
        number = numbers.pop(0)
        if not numbers:
            del self._waiting[key]
        return number

    def _append(self, rows: Mapping[str, npt.NDArray[np.generic]]) -> int:
        """Writes observations over the oldest rows; returns the number of the first."""
        count = len(next(iter(rows.values())))
        if count > self._capacity:
            raise ConfigError(
                f"{count} observations do not fit into a replay of {self._capacity}; "
                "raise agent.replay.capacity or lower collection.steps"
            )
        begin = self._written
        slots = (begin + np.arange(count)) % self._capacity
        for bucket, values in rows.items():
            self._observations[bucket][slots] = values
        self._begins[slots] = False
        self._written += count
        self._candidates = None
        return begin

    def _decide(
        self,
        numbers: npt.NDArray[np.int64],
        following: npt.NDArray[np.int64],
        actions: npt.NDArray[Any],
        reward: npt.NDArray[np.float32],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
    ) -> None:
        """Books decisions [T] made on rows `numbers`, whose successors are the rows `following`."""
        slots = numbers % self._capacity
        if self._width:
            self.continuous[slots] = actions[:, : self._width]
        else:
            self.discrete[slots] = actions
        self.reward[slots], self.terminated[slots], self.truncated[slots] = reward, terminated, truncated
        self._successor[slots] = following % self._capacity
        self._begins[slots] = True
        self._candidates = None

    def _drawable(self) -> npt.NDArray[np.int64]:
        if self._candidates is None:
            self._candidates = np.flatnonzero(self._begins)
        return self._candidates


def ring_bytes(layout: Layout, task_index: int, capacity: int) -> int:
    """Memory of a full ring."""
    spec, action = layout.observations[task_index], layout.actions[task_index]
    observation = 4 * (spec.state or 0) + (int(np.prod(spec.pixels)) if spec.pixels else 0)
    # reward, three flags, successor, and the list of what can be drawn
    row = observation + 4 * (action.continuous or 1) + 4 + 3 + 8 + 8
    return capacity * row
