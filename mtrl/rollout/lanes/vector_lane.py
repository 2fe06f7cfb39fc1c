"""The lane over a compiled vector backend: all copies in one call, without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.faults import environment_faults
from mtrl.spaces import Layout, Observation
from mtrl.tasks import StartSchedule, Task, VectorEnvironment

from .lane import Actions, Lane


class VectorLane(Lane):
    """M copies behind a `VectorEnvironment`; see `Lane` for the attributes.

    The backend steps all copies together. One whose schedule ran out is idle: it is stepped with the others,
    unrecorded and uncounted.
    """

    def __init__(
        self,
        task: Task,
        task_index: int,
        layout: Layout,
        environment: VectorEnvironment,
        copies: int,
        schedule: StartSchedule,
        backend: str,
        **settings: Any,  # noqa: ANN401 - those of Lane, which checks them
    ) -> None:
        """Owns and closes the environment; the other arguments are those of `Lane`."""
        settings["supports_starts"] = environment.supports_starts
        super().__init__(task, task_index, layout, copies, schedule, **settings)
        self.backend = backend
        self._environment = environment
        self._decisions = np.zeros(copies, dtype=np.int64)
        self._limits = np.zeros(copies, dtype=np.int64)
        self._first_success = np.full(copies, -1, dtype=np.int64)
        self._ended = np.zeros(copies, dtype=bool)
        self._over = np.zeros(copies, dtype=bool)
        self._idle = np.zeros(0, dtype=np.int64)

    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy, as `Lane.step`."""
        self.final_observations = []
        self._check_actions(continuous, discrete, self._decisions)
        actions = self._given if self._width else discrete
        for copy in range(self.copies):
            if self.active[copy]:
                self._history.append(copy, actions[copy])
        shown: Observation = {}
        if self._idle.size:
            actions = actions.copy()
            actions[self._idle] = 0
            shown = {bucket: rows[self._idle].copy() for bucket, rows in self._native.items()}
            over = self._idle[self._over[self._idle]]
            if over.size:
                # the backend does not step what has terminated
                self._reset(over, self.start_id[over])
        self._advance(actions)
        if self.task.end_on_success:
            self.terminated |= self.success
        self._mark_success()
        np.greater_equal(self._decisions, self._limits, out=self.truncated)
        if self.success_tail is not None:
            tail = (self._first_success >= 0) & (self._decisions - self._first_success >= self.success_tail)
            self.truncated |= tail
        self.truncated &= ~self.terminated
        if self._idle.size:
            self._hide_idle(shown)
        self._require_finite(self._decisions)
        np.logical_or(self.terminated, self.truncated, out=self._ended)
        if self._ended.any():
            ended = np.flatnonzero(self._ended).tolist()
            for copy in ended:
                self._keep_final(copy)
            self._next_episodes(ended)

    def close(self) -> None:
        """Frees the simulators."""
        self._environment.close()

    def _advance(self, actions: Actions) -> None:
        when = f"a step of {self.copies} copies on backend {self.backend}"
        with environment_faults(self.task.name, when):
            self._environment.step(actions, self._native, self.reward, self.terminated, self.success)
        self._decisions += self.active
        np.copyto(self._over, self.terminated)

    def _mark_success(self) -> None:
        first = self.success & (self._first_success < 0)
        self._first_success[first] = self._decisions[first]

    def _next_episodes(self, copies: Sequence[int]) -> None:
        super()._next_episodes(copies)
        self._idle = np.flatnonzero(~self.active)

    def _open_episodes(self, copies: Sequence[int], starts: Sequence[int]) -> None:
        self._reset(np.array(copies, dtype=np.int64), np.array(starts, dtype=np.int64))
        for copy, start in zip(copies, starts, strict=True):
            self._number_episode(copy, start)
            self._limits[copy] = self._limit(copy)
            self._decisions[copy] = 0
            self._over[copy] = False
            self._first_success[copy] = -1
            self._require_finite_copy(copy, "reset")

    def _replay(self, starts: npt.NDArray[np.int64], actions: Sequence[Actions]) -> None:
        """Copies with fewer decisions wait for their reset, so that all arrive together."""
        self._idle = np.flatnonzero(~self.active)
        lengths = np.array([len(taken) for taken in actions])
        waits = lengths.max() - lengths
        self._open_episodes(range(self.copies), starts.tolist())
        given = np.zeros_like(self._given) if self._width else np.zeros(self.copies, dtype=np.int64)
        for t in range(int(lengths.max())):
            for copy in np.flatnonzero(waits <= t).tolist():
                action = actions[copy][t - waits[copy]]
                given[copy] = action if self._width else action[0]
                self._history.append(copy, action)
            self._advance(given)
            self._mark_success()
            # those whose first action comes next, and those that ended while they waited
            again = np.flatnonzero((waits == t + 1) | ((waits > t + 1) & self.terminated))
            if again.size:
                self._open_episodes(again.tolist(), starts[again].tolist())

    def _reset(self, copies: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> None:
        when = f"reset of copies {copies.tolist()} on backend {self.backend}"
        with environment_faults(self.task.name, when):
            self._environment.reset(copies, starts, self._native)

    def _hide_idle(self, shown: Observation) -> None:
        """Idle copies keep their last observation, without reward."""
        for bucket, rows in shown.items():
            self._native[bucket][self._idle] = rows
        self.reward[self._idle] = 0.0
        for flags in (self.terminated, self.truncated, self.success):
            flags[self._idle] = False
