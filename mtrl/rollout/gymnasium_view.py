"""One task of any suite as an ordinary gymnasium.Env, for libraries that bring their own loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from mtrl import registry
from mtrl.errors import ConfigError, SpaceError, UnknownNameError, UnsupportedError
from mtrl.faults import environment_faults
from mtrl.outcomes import flag, outcome
from mtrl.tasks import Option, SelfTruncating, Split, Task, start_id

from .lanes.lane import require_finite

DRAWN_STARTS = 2**31
"""Resets without a seed draw from this many training starts."""
ViewObservation = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class GymnasiumView(gymnasium.Env[ViewObservation, Any]):
    """A task in its own unpadded sizes.

    Observation: Box float32 [D] for a state, Box uint8 [C, H, W] for pixels, a Dict of "state" and "pixels"
    for both. Action: Box [-1, 1] float32 [A], or Discrete. Episodes are truncated at the task's horizon and
    end on success where the task says so. `info` holds "start", the episode's start id, and after a step
    "success", the suite's signal.

    `reset(seed=s)` begins training start number s; `reset(options={"start": id})` the start of that id, of
    any split (see `mtrl.tasks.start_id`); `reset()` a training start drawn from `np_random`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(self, task: Task | str, render_mode: str | None = None) -> None:
        """`task` is a task, or the name of one with default options. Builds one environment.

        Raises ConfigError for a render mode other than None and "rgb_array", UnsupportedError for a suite
        that cannot reset to a given start.
        """
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"a view draws in render mode 'rgb_array' or not at all; got {render_mode!r}")
        self.task = registry.task(task) if isinstance(task, str) else task
        suite = registry.suite(self.task.suite)
        if not suite.supports_starts:
            raise UnsupportedError(
                f"suite {suite.name!r} cannot reset to a given start, so its tasks have no seeds; "
                "view a task of another suite"
            )
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.task.rate_hz}
        self.spec = view_spec(self.task)
        self.spec.kwargs["render_mode"] = render_mode
        observation, action = self.task.observation, self.task.action
        self._boxes: dict[str, spaces.Box] = {}
        if observation.state is not None:
            self._boxes["state"] = spaces.Box(-np.inf, np.inf, (observation.state,), np.float32)
        if observation.pixels is not None:
            self._boxes["pixels"] = spaces.Box(0, 255, observation.pixels, np.uint8)
        several = len(self._boxes) > 1
        self.observation_space = spaces.Dict({**self._boxes}) if several else _only(self._boxes)
        self.action_space = spaces.Box(-1.0, 1.0, (action.continuous,), np.float32)
        if action.is_discrete:
            self.action_space = spaces.Discrete(action.discrete)
        self._environment = registry.environment(self.task)
        self._own_clock = self._environment if isinstance(self._environment, SelfTruncating) else None
        self._violations = environment_faults(self.task.name, self._when, passing=(Exception,))
        self._start = -1
        self._decisions = 0
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ViewObservation, dict[str, Any]]:
        """Begins an episode; see the class for `seed` and `options`."""
        super().reset(seed=seed)
        chosen = dict(options or {})
        start = chosen.pop("start", None)
        for key in chosen:
            raise UnknownNameError("option of reset", key, ["start"])
        if start is None:
            index = seed if seed is not None else int(self.np_random.integers(DRAWN_STARTS))
            start = start_id(Split.TRAIN, index)
        elif not isinstance(start, int | np.integer) or start < 0:
            raise ConfigError(f"options['start'] is the id of a start, a whole number from 0; got {start!r}")
        self._start, self._decisions = int(start), 0
        out = self._buffers()
        with self._violations:
            self._environment.reset(self._start, out)
        return self._checked(out), {"start": self._start}

    def step(self, action: Any) -> tuple[ViewObservation, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Acts for one decision; continuous actions are clipped to [-1, 1].

        Raises SpaceError for an action of another shape or not finite, EnvironmentFault for an observation
        or reward that is not finite, and for signals that are no flags.
        """
        if self._start < 0:
            raise gymnasium.error.ResetNeeded(f"reset the view of {self.task.name} before its first step")
        out = self._buffers()
        native = self._native(action)
        self._decisions += 1
        with self._violations:
            reward, terminated, success = outcome(self._environment.step(native, out))
            own_end = self._own_clock is not None and flag("truncated", self._own_clock.truncated)
        observation = self._checked(out, reward)
        terminated = terminated or (success and self.task.end_on_success)
        cut = own_end or self._decisions >= self.task.horizon_decisions
        info = {"start": self._start, "success": success}
        return observation, reward, terminated, cut and not terminated, info

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]
        """An RGB frame [H, W, 3] in render mode "rgb_array", else None.

        Raises UnsupportedError or MissingExtraError when the task cannot be drawn here.
        """
        return self._environment.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees the environment; may be called again."""
        if not self._closed:
            self._closed = True
            self._environment.close()

    def _buffers(self) -> dict[str, npt.NDArray[Any]]:
        """New arrays: an observation belongs to its receiver."""
        return {bucket: np.zeros(box.shape, dtype=box.dtype) for bucket, box in self._boxes.items()}

    def _native(self, action: Any) -> npt.NDArray[np.float32] | int:  # noqa: ANN401
        spec = self.task.action
        if spec.is_discrete:
            index = np.asarray(action)
            if index.shape == () and index.dtype.kind in "iu" and 0 <= int(index) < spec.discrete:
                return int(index)
            expected = f"an index from 0 to {spec.discrete - 1}"
        else:
            vector = np.asarray(action, dtype=np.float32)
            if vector.shape == (spec.continuous,) and np.isfinite(vector).all():
                return np.clip(vector, -1.0, 1.0)
            expected = f"{spec.continuous} finite numbers"
        raise SpaceError(f"an action of task {self.task.name} is {expected}; got {action!r}")

    def _checked(self, out: dict[str, npt.NDArray[Any]], reward: float = 0.0) -> ViewObservation:
        require_finite(self.task, self._when, out.get("state"), reward)
        return out if len(out) > 1 else _only(out)

    def _when(self) -> str:
        return f"decision {self._decisions}, start {self._start}"


def view_spec(task: Task) -> EnvSpec:
    """What `gymnasium.make` builds a view of the task from, in any process that knows its suite."""
    return EnvSpec(
        id="mtrl/" + re.sub(r"[/@]", ".", task.name),
        entry_point=f"{__name__}:view_of",
        kwargs={
            "task": task.name,
            "options": dict(task.options),
            "end_on_success": task.end_on_success,
            "protocol_hash": task.protocol_hash,
        },
    )


def view_of(
    task: str,
    options: Mapping[str, Option],
    end_on_success: bool,
    protocol_hash: str,
    render_mode: str | None = None,
) -> GymnasiumView:
    """The view that `view_spec` describes; raises ConfigError where the task has another protocol today."""
    found = replace(registry.task(task, options), end_on_success=end_on_success)
    if found.protocol_hash != protocol_hash:
        raise ConfigError(
            f"task {task} has protocol {found.protocol_hash} here; the environment that was recorded has "
            f"{protocol_hash}: use the versions of mtrl and of its suites that recorded it"
        )
    return GymnasiumView(found, render_mode)


def _only(items: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the one value, whatever it is
    (value,) = items.values()
    return value
