"""What a lane did, step by step: the arrays that fragments and whole episodes are cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError

from ..policy import Action, Extra
from .lane import FinalObservation, Lane

BLOCK_STEPS = 64
"""Decisions of the first block; each further one holds twice as many."""
BLOCK_BYTES = 16 * 2**20
"""A block grows no larger, unless a single decision is."""

Rows = npt.NDArray[Any]
Pairs = Sequence[tuple[Rows, Rows]]
"""What is written to [T, N, ...], and from where [N, ...]."""


@dataclass(frozen=True)
class _Block:
    first: int
    """The recorder's decision that stands in row 0."""
    steps: int
    arrays: dict[str, Rows]


class StepRecorder:
    """Records the decisions of a lane of N copies, time-major, in preallocated arrays.

    With `steps` the arrays hold exactly so many decisions, and what is seen and whose episode it is once
    more after the last of them: a fragment. Without it they grow block by block for as long as episodes
    last, never by a whole horizon at once. Names of arrays: those of `Fragment`'s arrays over decisions,
    "observations.BUCKET" for the buckets that the task fills, "extras.NAME" for the policy's extras.
    """

    def __init__(
        self,
        lane: Lane,
        extras: tuple[Extra, ...] = (),
        *,
        steps: int | None = None,
        outcomes_only: bool = False,
    ) -> None:
        """`outcomes_only` keeps reward and success alone. Arrays are allocated with the first decision."""
        self.lane, self.extras, self.steps = lane, extras, steps
        self.decisions = 0
        """Recorded so far."""
        self.finals: list[tuple[int, FinalObservation]] = []
        """Decision and true last observation of every episode that ended, in order."""
        self._outcomes_only = outcomes_only
        self._seen: dict[str, Rows] = {}
        self._outcome: dict[str, Rows] = {"reward": lane.reward, "success": lane.success}
        if not outcomes_only:
            self._seen = {f"observations.{b}": lane.observation[b] for b in lane.task.observation.buckets}
            self._seen |= {"start_id": lane.start_id, "episode_id": lane.episode_id}
            self._outcome |= {"terminated": lane.terminated, "truncated": lane.truncated}
        self._blocks: list[_Block] = []
        self._first, self._end = 0, 0
        self._copies: npt.NDArray[np.int64] | None = None
        self._before: Pairs = ()
        self._after: Pairs = ()

    def before_step(self, action: Action, copies: npt.NDArray[np.int64] | None = None) -> None:
        """Stores what was seen, the action and its extras, and whose episode it is.

        `copies` are those whose decision counts, all by default. Raises SpaceError for an extra that the
        policy does not declare, or of another shape.
        """
        if self.decisions == self._end:
            self._allocate(action.continuous.shape[1])
        self._copies = copies
        if self._outcomes_only:
            return
        row = self.decisions - self._first
        self._store(row, self._before)
        self._store(row, ((self._continuous, action.continuous), (self._discrete, action.discrete)))
        if action.extras:
            self._store(row, self._given(action.extras))

    def after_step(self) -> None:
        """Stores what the lane's step came to."""
        self._store(self.decisions - self._first, self._after)
        if self.lane.finals and not self._outcomes_only:
            self.finals.extend((self.decisions, final) for final in self.lane.finals)
        self.decisions += 1

    def _store(self, row: int, pairs: Pairs) -> None:
        copies = self._copies
        if copies is None:
            for target, source in pairs:
                target[row] = source
        else:
            for target, source in pairs:
                target[row, copies] = source[copies]

    def _given(self, extras: Mapping[str, Rows]) -> Pairs:
        pairs = []
        for name, values in extras.items():
            target = self._declared.get(name)
            if target is None:
                raise SpaceError(
                    f"the policy gives the extra {name!r}, which it does not declare in `extras`"
                )
            if values.shape != target.shape[1:]:
                raise SpaceError(
                    f"the policy's extra {name!r} is declared as {target.shape[1:]} for "
                    f"{self.lane.copies} copies; got {values.shape}"
                )
            pairs.append((target, values))
        return pairs

    def complete(self) -> dict[str, Rows]:
        """The arrays of exactly `steps` decisions, those of what was seen with one row more."""
        assert self.decisions == self.steps, "complete after exactly `steps` decisions"
        (block,) = self._blocks
        for target, source in self._before:
            target[self.steps] = source
        return block.arrays

    def copy_episode(self, name: str, copy: int, first: int, out: Rows) -> None:
        """Writes the decisions of a copy from `first` on to `out` [T, ...], as many and as wide as it is."""
        last = first + len(out)
        for block in self._blocks:
            begin, end = max(first, block.first), min(last, block.first + block.steps)
            if begin < end:
                rows = block.arrays[name][begin - block.first : end - block.first, copy]
                out[begin - first : end - first] = rows[:, : out.shape[1]] if out.ndim > 1 else rows

    def column(self, name: str, copy: int, first: int) -> Rows:
        """[T, ...], a copy's decisions from `first` to the latest."""
        like = self.like(name)
        out = np.empty((self.decisions - first, *like.shape[2:]), dtype=like.dtype)
        self.copy_episode(name, copy, first, out)
        return out

    def like(self, name: str) -> Rows:
        """[t, N, ...], the first rows of that name, for their shape and type."""
        return self._blocks[0].arrays[name]

    def release(self, name: str) -> None:
        """Frees the arrays of that name, once every episode is copied."""
        for block in self._blocks:
            del block.arrays[name]

    def _allocate(self, actions: int) -> None:
        assert self.steps is None or not self._blocks, "a fragment holds exactly `steps` decisions"
        copies, kinds = self.lane.copies, self._kinds(actions)
        if self.steps is None:
            size = sum(int(np.prod(shape)) * kind.itemsize for shape, kind in kinds.values())
            if not self._outcomes_only:
                size += sum(extra.filled(1).nbytes for extra in self.extras)
            doubled = 2 * self._blocks[-1].steps if self._blocks else BLOCK_STEPS
            steps = max(1, min(doubled, BLOCK_BYTES // max(size * copies, 1)))
        else:
            steps = self.steps
        more = {name: int(self.steps is not None) for name in self._seen}
        arrays: dict[str, Rows] = {
            name: np.zeros((steps + more.get(name, 0), copies, *shape), dtype=kind)
            for name, (shape, kind) in kinds.items()
        }
        if not self._outcomes_only:
            arrays |= {f"extras.{extra.name}": extra.filled(steps, copies) for extra in self.extras}
        self._blocks.append(_Block(self._end, steps, arrays))
        self._first, self._end = self._end, self._end + steps
        self._before = [(arrays[name], source) for name, source in self._seen.items()]
        self._after = [(arrays[name], source) for name, source in self._outcome.items()]
        if not self._outcomes_only:
            self._continuous, self._discrete = arrays["continuous"], arrays["discrete"]
            self._declared = {extra.name: arrays[f"extras.{extra.name}"] for extra in self.extras}

    def _kinds(self, actions: int) -> Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Name -> shape and type of one copy's row."""
        known = {**self._seen, **self._outcome}
        kinds = {name: (rows.shape[1:], rows.dtype) for name, rows in known.items()}
        if not self._outcomes_only:
            kinds["continuous"] = ((actions,), np.dtype(np.float32))
            kinds["discrete"] = ((), np.dtype(np.int64))
        return kinds
