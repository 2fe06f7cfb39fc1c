"""A task set as libraries with one observation space and one action space see it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.faults import environment_faults
from mtrl.spaces import Observation
from mtrl.tasks import Split, Task, TaskSet, TrainingStarts, split_of

from .episodes import EpisodeSummary
from .gymnasium_view import GymnasiumView, ViewObservation

SharedObservation = npt.NDArray[np.float32] | dict[str, npt.NDArray[Any]]
"""Flat [D], or bucket -> array where pixels are involved; with a leading [N] for N copies."""


class SharedSpace:
    """One observation space and one action space for all tasks of a set, for Stable-Baselines3 and RLlib.

    Observation, with D_max, A_max and K of the set's layout:
    - states only: Box float32 [D_max + K], the state padded with zeros, then the task as one-hot;
    - pixels involved: Dict of "pixels" (uint8 [C, H, W]), "state" (float32 [D_max], where a task has one) and
      "task" (float32 [K]); a bucket that a task does not fill holds zeros.
    A set of one task has no one-hot: the observation is then the task's own.

    Action:
    - every task continuous: Box [-1, 1] float32 [A_max]; a task takes its first numbers, the rest do nothing;
    - every task discrete: Discrete of the largest count n_max; a task of n_k < n_max actions takes index i as
      i mod n_k, because these libraries cannot mask an index out.
    """

    def __init__(self, tasks: TaskSet) -> None:
        """Raises UnsupportedError for discrete and continuous tasks in one set."""
        layout = tasks.layout
        discrete = [task.name for task in tasks if task.action.is_discrete]
        continuous = [task.name for task in tasks if not task.action.is_discrete]
        if discrete and continuous:
            raise UnsupportedError(
                "a library with one action space cannot play discrete and continuous tasks in one run; got "
                f"discrete: {_some(discrete)}; continuous: {_some(continuous)}. Train each kind in a run of "
                "its own, or all of them with agent=sac"
            )
        self.tasks, self.layout = tasks, layout
        self.discrete = bool(discrete)
        self.task_columns = len(tasks) if len(tasks) > 1 else 0
        """Entries of the one-hot task: K, or 0 for one task."""
        self.flat = layout.pixels_shape is None
        """Whether an observation is one vector rather than a Dict."""
        self.observation_space: spaces.Space[Any] = self._observations()
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (layout.continuous_size,), np.float32)
        if self.discrete:
            self.action_space = spaces.Discrete(layout.discrete_size)
        self._one_hot = np.eye(len(tasks), dtype=np.float32)[:, : self.task_columns]
        self._counts = np.array([max(1, task.action.discrete) for task in tasks], dtype=np.int64)

    def observe(self, observation: Observation, task_index: npt.NDArray[np.int64]) -> SharedObservation:
        """Padded buckets [N, ...] and tasks [N] -> N rows of the observation space, as new arrays."""
        one_hot = self._one_hot[task_index]
        if self.flat:
            return np.concatenate([observation["state"], one_hot], axis=1, dtype=np.float32)
        rows = {bucket: np.array(observation[bucket]) for bucket in self.layout.buckets}
        return {**rows, "task": one_hot} if self.task_columns else rows

    def observe_native(self, observation: ViewObservation, task_index: int) -> SharedObservation:
        """One unpadded observation of a `GymnasiumView` -> one element of the observation space."""
        spec = self.layout.observations[task_index]
        given = observation if isinstance(observation, dict) else {spec.buckets[0]: observation}
        padded = self.layout.zeros(1)
        for bucket in spec.buckets:
            row = given[bucket]
            padded[bucket][0, : len(row)] = row
        rows = self.observe(padded, np.array([task_index]))
        return {key: row[0] for key, row in rows.items()} if isinstance(rows, dict) else rows[0]

    def decide(
        self, chosen: npt.NDArray[Any], task_index: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """N elements of the action space and their tasks [N] -> continuous [N, A_max], discrete [N].

        Continuous numbers are clipped to [-1, 1] and zero where masked; an index is taken modulo the task's
        count. The other of the two is zero.
        """
        count, layout = len(task_index), self.layout
        continuous = np.zeros((count, layout.continuous_size), dtype=np.float32)
        discrete = np.zeros(count, dtype=np.int64)
        if self.discrete:
            discrete = np.asarray(chosen, dtype=np.int64).reshape(count) % self._counts[task_index]
        else:
            mask = layout.continuous_mask[task_index]
            np.copyto(continuous, np.clip(np.asarray(chosen, dtype=np.float32), -1.0, 1.0), where=mask)
        return continuous, discrete

    def native_action(self, chosen: Any, task_index: int) -> npt.NDArray[np.float32] | int:  # noqa: ANN401
        """One element of the action space -> what a `GymnasiumView` of the task takes."""
        continuous, discrete = self.decide(np.asarray(chosen)[None], np.array([task_index]))
        if self.discrete:
            return int(discrete[0])
        return continuous[0, : self.layout.actions[task_index].continuous]

    def _observations(self) -> spaces.Space[Any]:
        layout = self.layout
        if self.flat:
            return spaces.Box(-np.inf, np.inf, (layout.state_size + self.task_columns,), np.float32)
        parts: dict[str, spaces.Space[Any]] = {}
        if layout.state_size:
            parts["state"] = spaces.Box(-np.inf, np.inf, (layout.state_size,), np.float32)
        assert layout.pixels_shape is not None
        parts["pixels"] = spaces.Box(0, 255, layout.pixels_shape, np.uint8)
        if self.task_columns:
            parts["task"] = spaces.Box(0.0, 1.0, (self.task_columns,), np.float32)
        return spaces.Dict(parts)


class SharedEnvironment(gymnasium.Env[SharedObservation, Any]):
    """Task k of a set in the set's shared space, for training: it begins training starts and no others.

    The starts are those that copy `copy` of `copies` begins under any agent: `reset()` takes the next of
    them, `reset(seed=s)` training start number s. Terminated and truncated stay apart, as in `GymnasiumView`.

    `info` holds "task" (the index), "start" and, after a step, "success"; after the last step of an episode
    also "summary", an `EpisodeSummary`, which is what `BaselineRun.add` takes.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        space: SharedSpace,
        task_index: int,
        *,
        copy: int = 0,
        copies: int = 1,
        seed: int = 0,
        begun: int = 0,
    ) -> None:
        """`begun`: episodes that this copy has begun in earlier sessions.

        The simulator starts with the first `reset`, which raises UnsupportedError for a suite that cannot
        reset to a given start.
        """
        self.space, self.task_index = space, task_index
        self.task: Task = space.tasks[task_index]
        self.observation_space, self.action_space = space.observation_space, space.action_space
        self._view: GymnasiumView | None = None
        self._schedule = TrainingStarts(copies=1, first_copy=copy, total_copies=copies, seed=seed)
        self.begun = begun
        self._start = -1
        self._rewards: list[float] = []
        self._successes: list[bool] = []

    @property
    def begun(self) -> int:
        """Episodes begun from the schedule so far, those of earlier sessions included; may be set."""
        return self._schedule.state_dict()["used"][0]

    @begun.setter
    def begun(self, count: int) -> None:
        self._schedule.load_state_dict({"used": [count]})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SharedObservation, dict[str, Any]]:
        """Begins an episode; `options={"start": id}` begins the training start of that id.

        Raises ConfigError for a start of another split.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        split = split_of(int(chosen.get("start", 0)))
        if split is not Split.TRAIN:
            raise ConfigError(
                f"start {chosen['start']} belongs to the {split.name.lower()} split; "
                "a baseline learns from training starts, whose ids are multiples of 3"
            )
        if seed is None and "start" not in chosen:
            chosen["start"] = self._schedule.next_start(0)
        with self._faults(f"reset to start {chosen.get('start', f'number {seed}')}"):
            self._view = self._view or GymnasiumView(self.task)
            observation, info = self._view.reset(seed=seed, options=chosen)
        self._start, self._rewards, self._successes = int(info["start"]), [], []
        info = {"task": self.task_index, "start": self._start}
        return self.space.observe_native(observation, self.task_index), info

    def step(self, action: Any) -> tuple[SharedObservation, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Acts for one decision.

        Raises ResetNeeded before a reset, EnvironmentFault when the simulator fails, and what
        `GymnasiumView.step` raises.
        """
        if self._view is None:
            raise gymnasium.error.ResetNeeded(
                f"reset the environment of {self.task.name} before its first step"
            )
        native = self.space.native_action(action, self.task_index)
        with self._faults(f"decision {len(self._rewards) + 1}, start {self._start}"):
            observation, reward, terminated, truncated, found = self._view.step(native)
        self._rewards.append(reward)
        self._successes.append(found["success"])
        info: dict[str, Any] = {"task": self.task_index, "start": self._start}
        info["success"] = self._successes[-1]
        if terminated or truncated:
            info["summary"] = EpisodeSummary.of(
                self._rewards,
                self._successes,
                task_index=self.task_index,
                start=self._start,
                terminated=terminated,
            )
        shown = self.space.observe_native(observation, self.task_index)
        return shown, reward, terminated, truncated, info

    def close(self) -> None:
        """Frees the simulator; another `reset` starts a new one."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def _faults(self, when: str) -> AbstractContextManager[None]:
        return environment_faults(self.task.name, when, passing=(gymnasium.error.Error,))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
