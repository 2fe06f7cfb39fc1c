"""The ring of one task: a flat ring of observations, and which of them begin a transition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.rollout import Extra, Fragment
from mtrl.spaces import Layout, Observation

from .storage import MappedStorage
from .trajectories import Trajectories

Places = npt.NDArray[np.int64]
OUTCOMES = ("reward", "terminated", "truncated")


@dataclass(frozen=True)
class Sequences:
    """B runs of at most T decisions that follow on each other within an episode."""

    places: Places
    """[T, B], of the decisions."""
    seen: Places
    """[T + 1, B], of the observations: what each decision saw, and the true successor of the last one."""
    real: npt.NDArray[np.bool_] | None
    """[T, B], False past the end of an episode or of what is stored; None where every decision is real."""


class ReplayRing:
    """Observations of one task in its own, unpadded sizes; each is stored once.

    A row holds an observation and, where a decision was made on it, the action, its outcome, and the
    row of the true successor. Rows are numbered as they are written, and a successor has a higher number
    than its predecessor: when the ring overwrites a row, every transition into it is gone already. The
    last row of a fragment waits for its decision, which the next fragment of that copy brings: the one
    of the same epoch that begins with the step at which this one stopped.
    """

    def __init__(
        self,
        layout: Layout,
        task_index: int,
        capacity: int,
        extras: Sequence[Extra] = (),
        storage: MappedStorage | None = None,
    ) -> None:
        """`capacity` counts observations; `extras` are stored with the actions. A storage that was filled
        before is continued as it is, but no fragment continues where the last ones stopped.
        """
        self._layout, self._task_index, self._capacity = layout, task_index, capacity
        self._extras = tuple(extras)
        self._width = layout.actions[task_index].continuous

        def allocate(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
            return (
                storage.allocate(f"{task_index}.{name}", shape, dtype) if storage else np.zeros(shape, dtype)
            )

        self._arrays = {
            name: allocate(name, (capacity, *shape), dtype)
            for name, (dtype, shape) in _rows(layout, task_index, self._extras).items()
        }
        spec = layout.observations[task_index]
        self._observations: Observation = {b: self._arrays[f"observations.{b}"] for b in spec.buckets}
        self._actions = self._arrays["continuous" if self._width else "discrete"]
        self.fields = {name: self._arrays[name] for name in OUTCOMES}
        """Outcomes and extras: name -> [capacity, *shape]."""
        self.fields |= {extra.name: self._arrays[f"extras.{extra.name}"] for extra in self._extras}
        self._successor, self._begins = self._arrays["successor"], self._arrays["begins"]
        self._counter = allocate("written", (1,), np.int64)
        self._waiting: dict[int, tuple[int, int, int]] = {}
        """Copy -> epoch, step and row number of its latest observation."""
        self._candidates: Places | None = None

    @property
    def size(self) -> int:
        """Transitions that can be drawn."""
        return len(self._drawn_from())

    @property
    def written(self) -> int:
        """Observations written so far, those that were overwritten since included."""
        return int(self._counter[0])

    def add(self, fragment: Fragment) -> None:
        """Stores every copy of a fragment; raises ConfigError when one copy alone exceeds the ring."""
        rows = {b: self._native(b, fragment.observations[b]) for b in self._observations}
        finals = {b: self._native(b, fragment.final_observations[b]) for b in self._observations}
        steps, copies = fragment.reward.shape
        for copy in range(copies):
            ends = np.flatnonzero(fragment.final_index[:, 1] == copy)
            place = fragment.first_copy + copy
            first = self._joined(place, fragment, steps + len(ends))
            skipped = int(first is not None)
            block = {b: np.concatenate([rows[b][skipped:, copy], finals[b][ends]]) for b in rows}
            begin = self._append(block)
            numbers = begin - skipped + np.arange(steps + 1)
            if first is not None:
                numbers[0] = first
            following = numbers[1:].copy()
            following[fragment.final_index[ends, 0]] = begin + steps + 1 - skipped + np.arange(len(ends))
            self._write_decisions(
                numbers[:-1],
                following,
                fragment.continuous[:, copy] if self._width else fragment.discrete[:, copy],
                {name: getattr(fragment, name)[:, copy] for name in OUTCOMES},
                {name: values[:, copy] for name, values in fragment.extras.items()},
            )
            self._waiting[place] = (fragment.epoch, fragment.first_step + steps, int(numbers[-1]))

    def drop_after(self, written: int) -> None:
        """Takes the rows from number `written` on out of what is drawn, and every transition into them."""
        dropped = np.arange(written, self.written)[-self._capacity :] % self._capacity
        self._begins[dropped] = False
        self._begins &= ~np.isin(self._successor, dropped)
        self._candidates = None

    def add_trajectories(self, data: Trajectories) -> None:
        """Stores whole episodes, which must fit into the ring."""
        begin = self._append({b: data.observations[b] for b in self._observations})
        episode = np.repeat(np.arange(data.episode_count), data.lengths)
        numbers = begin + np.arange(data.step_count) + episode
        outcomes = {"reward": data.rewards, "terminated": data.terminated, "truncated": data.truncated}
        self._write_decisions(numbers, numbers + 1, data.actions, outcomes, {})

    def draw(self, count: int, generator: np.random.Generator) -> Places:
        """[count], places of transitions, uniform with replacement."""
        # p(place) = 1 / N over the N rows on which a decision was made
        candidates = self._drawn_from()
        return candidates.take(generator.integers(0, len(candidates), size=count))

    def follow(self, first: Places, steps: int) -> Sequences:
        """At most `steps` decisions from each of the places `first` [B] on, until the episode ends."""
        if steps == 1:
            return Sequences(first[None], np.array((first, self._successor.take(first))), None)
        # seen[t + 1] = successor(seen[t]); real[t] = real[t - 1] and a decision was made on seen[t]
        places = np.empty((steps, len(first)), dtype=np.int64)
        seen = np.empty((steps + 1, len(first)), dtype=np.int64)
        real = np.ones((steps, len(first)), dtype=bool)
        places[0] = seen[0] = first
        for t in range(steps):
            if t:
                # the last observation of an episode, and of a lane, begins no decision
                real[t] = real[t - 1] & self._begins[seen[t]]
                places[t] = seen[t]
            seen[t + 1] = self._successor[places[t]]
        return Sequences(places, seen, None if real.all() else real)

    def observe(self, bucket: str, places: Places, out: npt.NDArray[np.generic]) -> None:
        """Writes the observations at `places` [T, B] to `out` [T, B, ...], padded."""
        rows = self._observations[bucket]
        if bucket == "state":
            out = out[..., : rows.shape[1]]
        for t, row in enumerate(places):
            out[t] = rows.take(row, axis=0)

    def act(
        self, places: Places, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]
    ) -> None:
        """Writes the actions of `places` [...] to `continuous` [..., A_max] or `discrete` [...]."""
        if self._width:
            continuous[..., : self._width] = self._actions.take(places, axis=0)
        else:
            discrete[...] = self._actions.take(places)

    def state_dict(self) -> dict[str, Any]:
        """The rows in use, how far they were written, and where each copy continues."""
        used = min(self.written, self._capacity)
        links = [(copy, *link) for copy, link in sorted(self._waiting.items())]
        return {
            "written": self.written,
            "links": np.array(links, dtype=np.int64).reshape(-1, 4),
            "arrays": {name: rows[:used].copy() for name, rows in self._arrays.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; raises ConfigError for a ring of another capacity or other extras, and for
        one that was saved without links.
        """
        if "links" not in state:
            raise ConfigError(
                "this replay was saved by an earlier version of mtrl, which did not keep what a lane's next "
                "fragment continues from. Resume the run with the version that saved it, or train it again"
            )
        used = len(state["arrays"]["reward"])
        if used > self._capacity or (used < self._capacity and used < state["written"]):
            raise ConfigError(
                f"the saved replay is a ring of {used} observations, this one of {self._capacity}; "
                "resume with the same agent.replay.capacity"
            )
        if differing := sorted(self._arrays.keys() ^ state["arrays"].keys()):
            raise ConfigError(
                f"the saved replay and this one differ in {', '.join(differing)}; resume with the agent's "
                "settings that it was saved with"
            )
        for name, rows in self._arrays.items():
            rows[:used] = state["arrays"][name]
        # storage that outlived its process may hold rows written after the checkpoint
        self._begins[used:] = False
        self._counter[0] = state["written"]
        self._candidates = None
        self._waiting = {int(copy): (int(e), int(s), int(n)) for copy, e, s, n in state["links"]}

    def _native(self, bucket: str, padded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return self._layout.native_state(self._task_index, padded) if bucket == "state" else padded

    def _joined(self, copy: int, fragment: Fragment, fresh: int) -> int | None:
        """The number of the row from which the fragment continues, if it survives `fresh` more rows."""
        epoch, step, number = self._waiting.get(copy, (-1, -1, -1))
        follows = (epoch, step) == (fragment.epoch, fragment.first_step)
        return number if follows and number >= self.written + fresh - self._capacity else None

    def _append(self, rows: Mapping[str, npt.NDArray[np.generic]]) -> int:
        """Writes observations over the oldest rows; returns the number of the first."""
        count = len(next(iter(rows.values())))
        if count > self._capacity:
            raise ConfigError(
                f"{count} observations do not fit into a replay of {self._capacity}; "
                "raise agent.replay.capacity or lower collection.steps"
            )
        begin = self.written
        slots = (begin + np.arange(count)) % self._capacity
        # before the rows change: a process that is killed between must not leave a torn transition in a file
        self._begins[slots] = False
        for bucket, values in rows.items():
            self._observations[bucket][slots] = values
        self._counter[0] += count
        self._candidates = None
        return begin

    def _write_decisions(
        self,
        numbers: Places,
        following: Places,
        actions: npt.NDArray[Any],
        outcomes: Mapping[str, npt.NDArray[Any]],
        extras: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Writes decisions [T] made on rows `numbers`, whose successors are the rows `following`."""
        slots = numbers % self._capacity
        self._actions[slots] = actions[:, : self._width] if self._width else actions
        for name, values in outcomes.items():
            self.fields[name][slots] = values
        for extra in self._extras:
            self.fields[extra.name][slots] = extras.get(extra.name, extra.filled())
        self._successor[slots] = following % self._capacity
        self._begins[slots] = True
        self._candidates = None

    def _drawn_from(self) -> Places:
        if self._candidates is None:
            self._candidates = np.flatnonzero(self._begins)
        return self._candidates


def ring_bytes(layout: Layout, task_index: int, capacity: int) -> int:
    """Memory of a full ring, extras not counted."""
    rows = _rows(layout, task_index, ()).values()
    # and an index in the list of what can be drawn
    return capacity * (8 + sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in rows))


def _rows(
    layout: Layout, task_index: int, extras: Sequence[Extra]
) -> dict[str, tuple[npt.DTypeLike, tuple[int, ...]]]:
    """Array of a ring -> element type and shape of one row."""
    spec, width = layout.observations[task_index], layout.actions[task_index].continuous
    state = {} if spec.state is None else {"observations.state": (np.float32, (spec.state,))}
    pixels = {} if spec.pixels is None else {"observations.pixels": (np.uint8, spec.pixels)}
    return {
        **state,
        **pixels,
        **{f"extras.{extra.name}": (extra.dtype, extra.shape) for extra in extras},
        "continuous": (np.float32, (width,)),
        **({} if width else {"discrete": (np.int32, ())}),
        "reward": (np.float32, ()),
        "terminated": (np.bool_, ()),
        "truncated": (np.bool_, ()),
        "successor": (np.int64, ()),
        "begins": (np.bool_, ()),
    }
