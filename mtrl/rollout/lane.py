"""A lane: one task times M copies, stepped in place into preallocated buffers.

Autoreset is SAME_STEP: when a copy's episode ends, the stored observation is already the first of
the next episode, and the true last one is kept sparsely in `finals`. Terminated (the problem ended)
and truncated (the clock or the caller ended it) are never merged.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, MtrlError, SpaceError, UnsupportedError
from mtrl.spaces import Layout, Observation
from mtrl.tasks import Environment, StartSchedule, Task

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinalObservation:
    """The observation with which an episode truly ended."""

    copy: int
    observation: Observation
    """Bucket -> [...], padded, without a copy axis."""


class Lane(Protocol):
    """The contract of every backend. Arrays are buffers, overwritten by the next `step`."""

    task: Task
    task_index: int
    copies: int
    supports_starts: bool
    backend: str
    """"python" (the official environment) or "native" (a vector backend)."""
    observation: Observation
    """Bucket -> [M, ...], padded."""
    reward: npt.NDArray[np.float32]
    """[M]"""
    terminated: npt.NDArray[np.bool_]
    """[M]"""
    truncated: npt.NDArray[np.bool_]
    """[M]"""
    success: npt.NDArray[np.bool_]
    """[M], the success signal after this step."""
    start_id: npt.NDArray[np.int64]
    """[M], start of the episode that the stored observation belongs to."""
    episode_id: npt.NDArray[np.int64]
    """[M], unique per (task, episode) in a run."""
    active: npt.NDArray[np.bool_]
    """[M], False once a copy has no start left."""
    finals: list[FinalObservation]
    """Episodes that ended in the last step."""

    def begin(self) -> None:
        """Resets every copy to the next start of the schedule; called once, before the first step."""

    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy. `continuous` [M, A_max] in [-1, 1], `discrete` [M].

        Raises SpaceError for an action outside the task's action space, EnvironmentFault when an
        environment fails.
        """

    def state_dict(self) -> dict[str, object]:
        """Start and actions so far of every copy: enough to rebuild the lane exactly."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Rebuilds by resetting to the start and repeating the actions."""

    def close(self) -> None:
        """Frees the simulators."""


class PythonLane:
    """The lane over `Environment` adapters; see `Lane` for the attributes."""

    backend = "python"

    def __init__(
        self,
        task: Task,
        task_index: int,
        layout: Layout,
        environments: Sequence[Environment],
        schedule: StartSchedule,
        *,
        first_copy: int = 0,
        total_copies: int = 0,
        success_tail: int | None = None,
        supports_starts: bool = True,
    ) -> None:
        """`success_tail` truncates an episode that many decisions after its first success.

        `first_copy` and `total_copies` place this lane's copies among all copies of the task.
        """
        self.task, self.task_index, self.layout = task, task_index, layout
        self.copies = len(environments)
        self.supports_starts = supports_starts
        self.schedule = schedule
        self.success_tail = success_tail
        self._environments = list(environments)
        self._first_copy, self._total_copies = first_copy, total_copies or self.copies
        count = self.copies
        self.observation = layout.zeros(count)
        self.reward = np.zeros(count, dtype=np.float32)
        self.terminated = np.zeros(count, dtype=bool)
        self.truncated = np.zeros(count, dtype=bool)
        self.success = np.zeros(count, dtype=bool)
        self.start_id = np.full(count, -1, dtype=np.int64)
        self.episode_id = np.full(count, -1, dtype=np.int64)
        self.active = np.ones(count, dtype=bool)
        self.finals: list[FinalObservation] = []
        self._decisions = [0] * count
        self._first_success: list[int | None] = [None] * count
        self._episodes = [0] * count
        self._views = [self._native_views(copy) for copy in range(count)]
        self._history: list[list[npt.NDArray[np.float32] | int]] = [[] for _ in range(count)]
        self._width = task.action.continuous

    def begin(self) -> None:
        """Resets every copy to the next start of the schedule; called once, before the first step."""
        self.active[:] = True
        self._episodes = [0] * self.copies
        for copy in range(self.copies):
            self._next_episode(copy)

    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy once; raises SpaceError and EnvironmentFault as `Lane.step` says."""
        self.finals = []
        horizon, tail = self.task.horizon_decisions, self.success_tail
        for copy in range(self.copies):
            if not self.active[copy]:
                self.reward[copy] = 0.0
                self.terminated[copy] = self.truncated[copy] = self.success[copy] = False
                continue
            action = self._native_action(copy, continuous, discrete)
            reward, terminated, success = self._guarded_step(copy, action)
            decisions, first = self._decisions[copy], self._first_success[copy]
            terminated = terminated or (success and self.task.end_on_success)
            truncated = not terminated and (
                decisions >= horizon or (tail is not None and first is not None and decisions - first >= tail)
            )
            self.reward[copy], self.success[copy] = reward, success
            self.terminated[copy], self.truncated[copy] = terminated, truncated
            if terminated or truncated:
                last = {bucket: rows[copy].copy() for bucket, rows in self.observation.items()}
                self.finals.append(FinalObservation(copy, last))
                self._next_episode(copy)

    def state_dict(self) -> dict[str, object]:
        """Start, episode number and actions so far of every copy, and the schedule."""
        if not self.supports_starts:
            raise UnsupportedError(
                f"task {self.task.name}: this backend cannot honour starts; a run on it cannot resume exactly"
            )
        width = max(self._width, 1)
        return {
            "starts": self.start_id.copy(),
            "episodes": list(self._episodes),
            "active": self.active.copy(),
            "schedule": self.schedule.state_dict(),
            "actions": [
                np.array(h, dtype=np.float32 if self._width else np.int64).reshape(len(h), width)
                for h in self._history
            ],
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Resets every copy to its start and repeats its actions.

        Observations and books are then those of the saved lane; `reward`, `finals` and the flags of
        its last step are not part of the state and read as before a first step.
        """
        starts, actions = state["starts"], state["actions"]
        episodes, active, schedule = state["episodes"], state["active"], state["schedule"]
        assert isinstance(starts, np.ndarray) and isinstance(actions, list) and isinstance(episodes, list)
        assert isinstance(active, np.ndarray) and isinstance(schedule, dict)
        self.schedule.load_state_dict(schedule)
        self._episodes = list(episodes)
        self.active[:] = active
        self.finals = []
        self.reward[:] = 0.0
        self.terminated[:] = self.truncated[:] = self.success[:] = False
        for copy in range(self.copies):
            if starts[copy] < 0:
                continue
            self._open_episode(copy, int(starts[copy]))
            for row in actions[copy]:
                self._guarded_step(copy, row.copy() if self._width else int(row[0]))

    def close(self) -> None:
        """Frees the simulators."""
        close_all(self.task, self._environments)

    def _native_views(self, copy: int) -> Mapping[str, npt.NDArray[np.generic]]:
        """This copy's rows of the buffers, cut to the task's own sizes; environments write here."""
        views: Observation = {}
        spec = self.task.observation
        if spec.state is not None:
            views["state"] = self.observation["state"][copy, : spec.state]
        if spec.pixels is not None:
            views["pixels"] = self.observation["pixels"][copy]
        # Read-only, so that `out["state"] = array` fails instead of leaving the buffer as it was.
        return MappingProxyType(views)

    def _native_action(
        self, copy: int, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32] | int:
        """The action in the task's own size; a policy's mistake must not pass for the environment's."""
        if self._width:
            action = continuous[copy, : self._width].copy()
            if len(action) == self._width and np.isfinite(action).all():
                return action
            expected, came = f"{self._width} finite numbers", str(action)
        else:
            index = int(discrete[copy])
            if 0 <= index < self.task.action.discrete:
                return index
            expected, came = f"an index from 0 to {self.task.action.discrete - 1}", str(index)
        raise SpaceError(
            f"decision {self._decisions[copy] + 1} of copy {copy} of task {self.task.name}: "
            f"the policy's action must be {expected}; got {came}"
        )

    def _next_episode(self, copy: int) -> None:
        start = self.schedule.next_start(copy)
        if start is None:
            self.active[copy] = False
            return
        self._episodes[copy] += 1
        self._open_episode(copy, start)

    def _open_episode(self, copy: int, start: int) -> None:
        try:
            self._environments[copy].reset(start, self._views[copy])
        except MtrlError:
            raise
        except Exception as error:
            raise self._fault(copy, f"reset of copy {copy} to start {start}", error) from error
        self.start_id[copy] = start
        self.episode_id[copy] = (self._episodes[copy] - 1) * self._total_copies + self._first_copy + copy
        self._decisions[copy] = 0
        self._first_success[copy] = None
        self._history[copy] = []
        self._check(copy, "reset")

    def _guarded_step(self, copy: int, action: npt.NDArray[np.float32] | int) -> tuple[float, bool, bool]:
        """One decision of one copy, counted and remembered: what `step` and a replay have in common."""
        # a copy, because an environment may write into the action it is given
        self._history[copy].append(action if isinstance(action, int) else action.copy())
        try:
            reward, terminated, success = self._environments[copy].step(action, self._views[copy])
            reward, terminated, success = float(reward), bool(terminated), bool(success)
        except MtrlError:
            raise
        except Exception as error:
            when = f"decision {self._decisions[copy] + 1} of copy {copy}, start {self.start_id[copy]}"
            raise self._fault(copy, when, error) from error
        self._decisions[copy] += 1
        if success and self._first_success[copy] is None:
            self._first_success[copy] = self._decisions[copy]
        self._check(copy, "step", reward)
        return reward, terminated, success

    def _check(self, copy: int, phase: str, reward: float = 0.0) -> None:
        """The NaN guard at the environment's border."""
        state = self._views[copy].get("state")
        broken = [] if math.isfinite(reward) else ["reward"]
        if state is not None and not np.isfinite(state).all():
            broken.append("state")
        if broken:
            when = f"{phase}, decision {self._decisions[copy]} of copy {copy}, start {self.start_id[copy]}"
            fields = " and ".join(map(repr, broken))
            raise EnvironmentFault(self.task.name, when, f"not finite: {fields}")

    def _fault(self, copy: int, when: str, error: Exception) -> EnvironmentFault:
        return EnvironmentFault(self.task.name, when, "".join(traceback.format_exception(error)))


def close_all(task: Task, environments: Sequence[Environment]) -> None:
    """Closes what can be closed: what failed before may fail here too, and must not keep the rest open."""
    for environment in environments:
        try:
            environment.close()
        except Exception:
            _logger.exception("an environment of task %s failed to close", task.name)
