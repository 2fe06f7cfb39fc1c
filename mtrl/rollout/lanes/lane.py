"""A lane: one task times M copies, stepped in place into preallocated buffers.

Autoreset is SAME_STEP: when a copy's episode ends, the stored observation is already the first of
the next episode, and the true last one is kept sparsely in `final_observations`. Terminated (the problem
ended) and truncated (a step limit or the caller ended it) are never merged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, SpaceError, UnsupportedError
from mtrl.spaces import Layout, Observation
from mtrl.tasks import StartSchedule, Task

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Multiples of it spread evenly over [0, 1) modulo 1, however many there are."""
FIRST_CAPACITY = 512
"""Decisions that fit before the memory of actions doubles; the longest episodes of a game have 27,000."""

Actions = npt.NDArray[np.float32] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class FinalObservation:
    """The observation with which an episode truly ended."""

    copy: int
    observation: Observation
    """Bucket -> [...], padded, without a copy axis."""


@dataclass(frozen=True)
class BrokenCopy:
    """An episode that a fault ended."""

    copy: int
    fault: EnvironmentFault


class LaneState(TypedDict):
    """State from which a lane is rebuilt."""

    starts: npt.NDArray[np.int64]
    """[M], -1 for a copy that has not begun."""
    episodes: list[int]
    """Episodes begun, per copy."""
    active: npt.NDArray[np.bool_]
    schedule: dict[str, Any]
    actions: list[Actions]
    """[T, A] or [T, 1] of every copy's running episode."""


class Lane(ABC):
    """Buffers, schedule, episode numbers and the check of actions; a backend adds the stepping. Arrays are
    overwritten by the next `step`.
    """

    backend = "python"
    """"python" (the official environment) or the name of a vector backend."""

    def __init__(
        self,
        task: Task,
        task_index: int,
        layout: Layout,
        copies: int,
        schedule: StartSchedule,
        *,
        first_copy: int = 0,
        total_copies: int = 0,
        success_tail: int | None = None,
        supports_starts: bool = True,
        stagger: bool = False,
    ) -> None:
        """`success_tail` truncates an episode that many decisions after its first success.

        `first_copy` and `total_copies` place this lane's copies among all copies of the task.
        `stagger` truncates the first episode of each copy at a point of its own, so that copies which
        began together do not all reset in one step ever after.
        """
        self.task, self.task_index, self.layout = task, task_index, layout
        self.copies, self.schedule, self.success_tail = copies, schedule, success_tail
        self.supports_starts = supports_starts
        self._first_copy, self._total_copies = first_copy, total_copies or copies
        self.observation = layout.zeros(copies)
        """Bucket -> [M, ...], padded."""
        self.reward = np.zeros(copies, dtype=np.float32)
        """[M]"""
        self.terminated, self.truncated = np.zeros(copies, dtype=bool), np.zeros(copies, dtype=bool)
        """[M] each."""
        self.success = np.zeros(copies, dtype=bool)
        """[M], the success signal after this step."""
        self.start_id = np.full(copies, -1, dtype=np.int64)
        """[M], start of the episode that the stored observation belongs to."""
        self.episode_id = np.full(copies, -1, dtype=np.int64)
        """[M], unique per (task, episode) in a run."""
        self.active = np.ones(copies, dtype=bool)
        """[M], False once a copy has no start left."""
        self.final_observations: list[FinalObservation] = []
        """Episodes that ended in the last step."""
        self.broken: list[BrokenCopy] = []
        """Episodes that faults ended in the last step or at the resets after it, in order, on a lane that
        goes on after faults."""
        self._episodes = [0] * copies
        self._width = task.action.continuous
        """A of the task, 0 where it is discrete."""
        self._history = _ActionHistory(copies, self._width, task.horizon_decisions)
        self._given = np.zeros((copies, self._width), dtype=np.float32)
        self._flat_given = self._given.reshape(-1)
        self._native = self._native_rows()
        # padding is zero, so that one test covers the whole buffer
        has_state = task.observation.state is not None
        self._flat_states: npt.NDArray[np.float32] = (
            self.observation["state"].reshape(-1) if has_state else np.zeros(0, dtype=np.float32)  # type: ignore[assignment]
        )
        self._first_limits = [
            self._first_limit(first_copy + copy) if stagger else task.horizon_decisions
            for copy in range(copies)
        ]

    def begin(self) -> None:
        """Resets every copy to the next start of the schedule; called once, before the first step."""
        self.active[:] = True
        self._episodes = [0] * self.copies
        self.broken = []
        self._next_episodes(range(self.copies))

    @abstractmethod
    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy. `continuous` [M, A_max] in [-1, 1], `discrete` [M].

        Raises SpaceError for an action outside the task's action space, EnvironmentFault when an
        environment fails.
        """

    def state_dict(self) -> LaneState:
        """Start, episode number and actions so far of every copy, and the schedule."""
        if not self.supports_starts:
            raise UnsupportedError(
                f"task {self.task.name}: this backend cannot reset to a given start; a run on it cannot "
                "resume exactly"
            )
        return {
            "starts": self.start_id.copy(),
            "episodes": list(self._episodes),
            "active": self.active.copy(),
            "schedule": self.schedule.state_dict(),
            "actions": [self._history.of(copy) for copy in range(self.copies)],
        }

    def load_state_dict(self, state: LaneState) -> None:
        """Rebuilds the lane by resetting every copy to its start and repeating its actions.

        Observations and statistics are then those of the saved lane; `reward`, `final_observations` and the
        flags of its last step are not part of the state and have their values before the first step.
        """
        self.schedule.load_state_dict(state["schedule"])
        self._episodes = list(state["episodes"])
        self.active[:] = state["active"]
        self.final_observations = []
        self._replay(state["starts"], state["actions"])
        self.reward[:] = 0.0
        self.terminated[:] = self.truncated[:] = self.success[:] = False

    @abstractmethod
    def close(self) -> None:
        """Frees the simulators."""

    @abstractmethod
    def _replay(self, starts: npt.NDArray[np.int64], actions: Sequence[Actions]) -> None:
        """Steps every copy from its start [M] through its actions."""

    @abstractmethod
    def _open_episodes(self, copies: Sequence[int], starts: Sequence[int]) -> None:
        """Resets these copies to these starts."""

    def _next_episodes(self, copies: Sequence[int]) -> None:
        """Begins the next episode of these copies; one whose schedule ran out is active no more."""
        starts = {copy: start for copy in copies if (start := self.schedule.next_start(copy)) is not None}
        for copy in copies:
            self.active[copy] = copy in starts
            self._episodes[copy] += copy in starts
        if starts:
            self._open_episodes(list(starts), list(starts.values()))

    def _native_rows(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """The buffers [M, ...] cut to the task's own sizes; environments write here."""
        rows: Observation = {}
        spec = self.task.observation
        if spec.state is not None:
            rows["state"] = self.observation["state"][:, : spec.state]
        if spec.pixels is not None:
            rows["pixels"] = self.observation["pixels"]
        # Read-only, so that `out["state"] = array` fails instead of leaving the buffer as it was.
        return MappingProxyType(rows)

    def _first_limit(self, place: int) -> int:
        """Length of a staggered first episode; tasks and copies are all spread over the horizon."""
        phase = (place / self._total_copies + GOLDEN * self.task_index) % 1.0
        return max(1, math.ceil(self.task.horizon_decisions * (1.0 - phase)))

    def _limit(self, copy: int) -> int:
        """Decisions after which the copy's episode is truncated."""
        return self._first_limits[copy] if self._episodes[copy] == 1 else self.task.horizon_decisions

    def _check_actions(
        self,
        continuous: npt.NDArray[np.float32],
        discrete: npt.NDArray[np.int64],
        decisions: Sequence[int] | npt.NDArray[np.int64],
    ) -> None:
        """Checks the actions; a policy's mistake must not pass for the environment's.

        Continuous ones are copied, because an environment may write into the action it is given.
        """
        if self._width:
            fits = continuous.shape[1] >= self._width
            if fits:
                np.copyto(self._given, continuous[:, : self._width])
                if _plainly_finite(self._flat_given):
                    return
            right = np.isfinite(self._given).all(axis=1) & fits
            expected = f"{self._width} finite numbers"
            came = [str(row) for row in continuous[:, : self._width]]
        else:
            count = self.task.action.discrete
            whole = discrete.dtype.kind in "iu"
            if whole and int(discrete.min()) >= 0 and int(discrete.max()) < count:
                return
            right = (discrete >= 0) & (discrete < count) & whole
            expected = f"an index from 0 to {count - 1}"
            came = [f"{index}" + ("" if whole else f" of {discrete.dtype}") for index in discrete]
        for copy in np.flatnonzero(self.active & ~right).tolist():
            raise SpaceError(
                f"decision {decisions[copy] + 1} of copy {copy} of task {self.task.name}: "
                f"the policy's action must be {expected}; got {came[copy]}"
            )

    def _require_finite(self, decisions: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """The NaN guard at the environment's border, after a step of all copies."""
        if not (_plainly_finite(self.reward) and _plainly_finite(self._flat_states)):
            for copy in range(self.copies):
                try:
                    self._require_finite_copy(copy, f"step, decision {decisions[copy]}", self.reward[copy])
                except EnvironmentFault as fault:
                    self._break(copy, fault)

    def _break(self, copy: int, fault: EnvironmentFault) -> None:
        """Ends the copy's episode after a fault; raises the fault where the lane does not go on."""
        raise fault

    def _require_finite_copy(self, copy: int, when: str, reward: float | np.float32 = 0.0) -> None:
        states = self._native.get("state")
        state = None if states is None else states[copy]
        require_finite(
            self.task, lambda: f"{when} of copy {copy}, start {self.start_id[copy]}", state, reward
        )

    def _keep_final(self, copy: int) -> None:
        last = {bucket: rows[copy].copy() for bucket, rows in self.observation.items()}
        self.final_observations.append(FinalObservation(copy, last))

    def _number_episode(self, copy: int, start: int) -> None:
        """Records the beginning of the copy's latest episode."""
        self.start_id[copy] = start
        self.episode_id[copy] = (self._episodes[copy] - 1) * self._total_copies + self._first_copy + copy
        self._history.clear(copy)


class _ActionHistory:
    """The actions of every copy's running episode, [M, capacity, A] or [M, capacity, 1]."""

    def __init__(self, copies: int, width: int, horizon: int) -> None:
        dtype = np.float32 if width else np.int64
        self._rows = np.zeros((copies, min(horizon, FIRST_CAPACITY), max(width, 1)), dtype=dtype)
        self._lengths = [0] * copies

    def append(self, copy: int, action: npt.NDArray[np.float32] | int) -> None:
        length = self._lengths[copy]
        if length == self._rows.shape[1]:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)], axis=1)
        self._rows[copy, length] = action
        self._lengths[copy] = length + 1

    def clear(self, copy: int) -> None:
        self._lengths[copy] = 0

    def of(self, copy: int) -> Actions:
        actions: Actions = self._rows[copy, : self._lengths[copy]].copy()
        return actions


def require_finite(
    task: Task, when: Callable[[], str], state: npt.NDArray[np.generic] | None, reward: float | np.float32
) -> None:
    """Raises EnvironmentFault where a state or reward is not finite."""
    broken = [] if np.isfinite(reward) else ["'reward'"]
    if state is not None and not np.isfinite(state).all():
        broken.append("'state'")
    if broken:
        raise EnvironmentFault(task.name, when(), f"not finite: {' and '.join(broken)}")


def _plainly_finite(values: npt.NDArray[np.float32]) -> bool:
    """Whether the sum of squares [N] is finite: faster than testing entries, but False is not certain."""
    return math.isfinite(values.dot(values))
