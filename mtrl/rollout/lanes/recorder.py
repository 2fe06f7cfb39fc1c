"""Recording of a lane's decisions, from which fragments and whole episodes are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError
from mtrl.spaces import Observation

from ..fragment import STEP_ARRAYS, Fragment
from ..policy import Action, Extra, Version
from .lane import FinalObservation, Lane

BLOCK_STEPS = 64
"""Decisions of the first block; each further one holds twice as many."""
BLOCK_BYTES = 16 * 2**20
"""A block grows no larger, unless a single decision is."""

Rows = npt.NDArray[Any]
Pairs = Sequence[tuple[Rows, Rows]]
"""Target [T, N, ...] and source [N, ...] of what is written."""


@dataclass(frozen=True)
class _Block:
    first: int
    """Number of the decision in row 0."""
    steps: int
    arrays: dict[str, Rows]


class StepRecorder:
    """Records the decisions of a lane of N copies, time-major, in preallocated arrays.

    With `steps` the arrays hold exactly so many decisions, and observation and episode once more after the
    last of them: a fragment. Without it they grow block by block for as long as episodes last, never by a
    whole horizon at once. Names of arrays: those of `Fragment`'s arrays over decisions,
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
        """Decisions recorded so far."""
        self.final_observations: list[tuple[int, FinalObservation]] = []
        """Decision and true last observation of every episode that ended, in order."""
        self._outcomes_only = outcomes_only
        self._observed: dict[str, Rows] = {}
        self._outcome: dict[str, Rows] = {"reward": lane.reward, "success": lane.success}
        if not outcomes_only:
            self._observed = {f"observations.{b}": lane.observation[b] for b in lane.task.observation.buckets}
            self._observed |= {"start_id": lane.start_id, "episode_id": lane.episode_id}
            self._outcome |= {"terminated": lane.terminated, "truncated": lane.truncated}
        self._blocks: list[_Block] = []
        self._first, self._end = 0, 0
        self._copies: npt.NDArray[np.int64] | None = None
        self._before: Pairs = ()
        self._after: Pairs = ()

    def before_step(self, action: Action, copies: npt.NDArray[np.int64] | None = None) -> None:
        """Stores observation and episode, the action and its extras.

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
        """Stores the outcome of the lane's step."""
        self._store(self.decisions - self._first, self._after)
        if self.lane.final_observations and not self._outcomes_only:
            self.final_observations.extend((self.decisions, final) for final in self.lane.final_observations)
        self.decisions += 1

    def fragment(self, version: Version, first_copy: int = 0, first_step: int = 0) -> Fragment:
        """The `steps` decisions, which must all be recorded; the fragment takes over the arrays."""
        assert self.decisions == self.steps, "a fragment must hold exactly `steps` decisions"
        (block,) = self._blocks
        for target, source in self._before:
            target[self.steps] = source
        final_observations: Observation = {}
        for bucket in self.lane.task.observation.buckets:
            rows = block.arrays[f"observations.{bucket}"]
            kept = [final.observation[bucket] for _, final in self.final_observations]
            final_observations[bucket] = np.array(kept, dtype=rows.dtype).reshape(len(kept), *rows.shape[2:])
        index = [(t, final.copy) for t, final in self.final_observations]
        recorded: dict[str, Any] = {name: block.arrays[name] for name in STEP_ARRAYS}
        return Fragment(
            task_index=self.lane.task_index,
            policy_version=version,
            observations={bucket: block.arrays[f"observations.{bucket}"] for bucket in final_observations},
            final_index=np.array(index, dtype=np.int64).reshape(-1, 2),
            final_observations=final_observations,
            extras={extra.name: block.arrays[f"extras.{extra.name}"] for extra in self.extras},
            first_copy=first_copy,
            first_step=first_step,
            **recorded,
        )

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

    def _store(self, row: int, pairs: Pairs) -> None:
        copies = self._copies
        if copies is None:
            for target, source in pairs:
                target[row] = source
        else:
            for target, source in pairs:
                target[row, copies] = source[copies]

    def _given(self, extras: Mapping[str, Rows]) -> Pairs:
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
        return [(self._declared[name], values) for name, values in extras.items()]

    def _allocate(self, width: int) -> None:
        """Adds a block; `width` is A_max."""
        assert self.steps is None or not self._blocks, "a fragment must hold exactly `steps` decisions"
        steps = self.steps
        if steps is None:
            size = sum(rows.nbytes for rows in self._arrays(1, width).values())
            doubled = 2 * self._blocks[-1].steps if self._blocks else BLOCK_STEPS
            steps = max(1, min(doubled, BLOCK_BYTES // max(size, 1)))
        arrays = self._arrays(steps, width)
        self._blocks.append(_Block(self._end, steps, arrays))
        self._first, self._end = self._end, self._end + steps
        self._before = [(arrays[name], source) for name, source in self._observed.items()]
        self._after = [(arrays[name], source) for name, source in self._outcome.items()]
        if not self._outcomes_only:
            self._continuous, self._discrete = arrays["continuous"], arrays["discrete"]
            self._declared = {extra.name: arrays[f"extras.{extra.name}"] for extra in self.extras}

    def _arrays(self, steps: int, width: int) -> dict[str, Rows]:
        copies, observed = self.lane.copies, steps + (self.steps is not None)
        arrays = {
            name: np.zeros((observed, *rows.shape), dtype=rows.dtype) for name, rows in self._observed.items()
        }
        for name, rows in self._outcome.items():
            arrays[name] = np.zeros((steps, *rows.shape), dtype=rows.dtype)
        if not self._outcomes_only:
            arrays["continuous"] = np.zeros((steps, copies, width), dtype=np.float32)
            arrays["discrete"] = np.zeros((steps, copies), dtype=np.int64)
            arrays |= {f"extras.{extra.name}": extra.filled(steps, copies) for extra in self.extras}
        return arrays
