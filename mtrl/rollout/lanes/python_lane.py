"""The lane over official environments, stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault
from mtrl.faults import environment_faults
from mtrl.outcomes import flag, outcome
from mtrl.spaces import Layout
from mtrl.tasks import Environment, SelfTruncating, StartSchedule, Task

from .environments import close_all
from .lane import Actions, BrokenCopy, Lane


class PythonLane(Lane):
    """M environments of one task; see `Lane` for the attributes."""

    def __init__(
        self,
        task: Task,
        task_index: int,
        layout: Layout,
        environments: Sequence[Environment],
        schedule: StartSchedule,
        *,
        renew: Callable[[Environment], Environment] | None = None,
        **settings: Any,  # noqa: ANN401 - those of Lane, which checks them
    ) -> None:
        """Owns and closes the environments; the other arguments are those of `Lane`.

        `renew` closes an environment that failed and returns a new one: a fault ends its episode alone then,
        and `broken` lists it. Without it faults are raised.
        """
        super().__init__(task, task_index, layout, len(environments), schedule, **settings)
        self._environments, self._renew = list(environments), renew
        self._clocks = [
            environment if isinstance(environment, SelfTruncating) else None for environment in environments
        ]
        self._views: list[Mapping[str, npt.NDArray[np.generic]]] = [
            MappingProxyType({bucket: rows[copy] for bucket, rows in self._native.items()})
            for copy in range(self.copies)
        ]
        self._given_rows = list(self._given)
        self._decisions, self._limits = [0] * self.copies, [0] * self.copies
        self._acting = 0
        self._faults = environment_faults(task.name, self._decision)
        self._first_success: list[int | None] = [None] * self.copies

    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy, as `Lane.step`."""
        self.final_observations, self.broken = [], []
        self._check_actions(continuous, discrete, self._decisions)
        ended: list[int] = []
        indices = discrete.tolist()
        copies = iter(enumerate(self.active.tolist()))
        while True:
            # around all copies: around each it would cost several percent of a step of CartPole
            try:
                with self._faults:
                    self._step_copies(copies, indices, ended)
                break
            except EnvironmentFault as fault:
                self._break(self._acting, fault)
        self._require_finite(self._decisions)
        if self.broken:
            failed = [one.copy for one in self.broken]
            ended = [copy for copy in ended if copy not in failed]
            self._next_episodes(failed)
        for copy in ended:
            self._keep_final(copy)
        if ended:
            self._next_episodes(ended)

    def close(self) -> None:
        """Frees the simulators."""
        close_all(self.task, self._environments)

    def _step_copies(
        self, copies: Iterator[tuple[int, bool]], indices: Sequence[int], ended: list[int]
    ) -> None:
        for copy, active in copies:
            if not active:
                self.reward[copy] = 0.0
                self.terminated[copy] = self.truncated[copy] = self.success[copy] = False
                continue
            reward, terminated, success = self._decide(
                copy, self._given_rows[copy] if self._width else indices[copy]
            )
            terminated = terminated or (success and self.task.end_on_success)
            self.reward[copy], self.success[copy] = reward, success
            truncated = not terminated and self._is_over(copy)
            self.terminated[copy], self.truncated[copy] = terminated, truncated
            if terminated or truncated:
                ended.append(copy)

    def _break(self, copy: int, fault: EnvironmentFault) -> None:
        if self._renew is None:
            raise fault
        self.broken.append(BrokenCopy(copy, fault))
        for rows in self._native.values():
            rows[copy] = 0
        renewed = self._renew(self._environments[copy])
        self._environments[copy] = renewed
        self._clocks[copy] = renewed if isinstance(renewed, SelfTruncating) else None

    def _is_over(self, copy: int) -> bool:
        """Whether a clock ends the episode: the task's, the environment's own, or the success tail."""
        decisions, clock = self._decisions[copy], self._clocks[copy]
        if decisions >= self._limits[copy] or (clock is not None and flag("truncated", clock.truncated)):
            return True
        first, tail = self._first_success[copy], self.success_tail
        return tail is not None and first is not None and decisions - first >= tail

    def _decision(self) -> str:
        copy = self._acting
        return f"decision {self._decisions[copy] + 1} of copy {copy}, start {self.start_id[copy]}"

    def _decide(self, copy: int, action: npt.NDArray[np.float32] | int) -> tuple[float, bool, bool]:
        self._history.append(copy, action)
        self._acting = copy
        reward, terminated, success = outcome(self._environments[copy].step(action, self._views[copy]))
        self._decisions[copy] += 1
        if success and self._first_success[copy] is None:
            self._first_success[copy] = self._decisions[copy]
        return reward, terminated, success

    def _replay(self, starts: npt.NDArray[np.int64], actions: Sequence[Actions]) -> None:
        for copy in np.flatnonzero(starts >= 0).tolist():
            self._open_episodes([copy], [int(starts[copy])])
            for row in actions[copy]:
                with self._faults:
                    reward, _, _ = self._decide(copy, row.copy() if self._width else int(row[0]))
                self._require_finite_copy(copy, f"step, decision {self._decisions[copy]}", reward)

    def _open_episodes(self, copies: Sequence[int], starts: Sequence[int]) -> None:
        waiting = list(zip(copies, starts, strict=True))
        for copy, start in waiting:
            try:
                self._open_episode(copy, start)
            except EnvironmentFault as fault:
                self._break(copy, fault)
                following = self.schedule.next_start(copy)
                self.active[copy] = following is not None
                if following is not None:
                    self._episodes[copy] += 1
                    waiting.append((copy, following))

    def _open_episode(self, copy: int, start: int) -> None:
        with environment_faults(self.task.name, f"reset of copy {copy} to start {start}"):
            self._environments[copy].reset(start, self._views[copy])
        self._number_episode(copy, start)
        self._decisions[copy], self._limits[copy] = 0, self._limit(copy)
        self._first_success[copy] = None
        self._require_finite_copy(copy, "reset")
