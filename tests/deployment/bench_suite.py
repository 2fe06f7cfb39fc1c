"""A suite of one task, installed as a plug-in by the tests: a point that must be steered to its goal.

Its faults are task options, so that a robot process can be made to fail at a chosen step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtrl.errors import UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Environment, Expert, Option, Score, Task, start_seed

RATE_HZ = 50.0
HORIZON = 40
IMAGE = (2, 5, 3)
RIGHT = 12
MARK = 40.0
"""A faulty policy fails where an entry of the state is above this."""


class PointEnvironment:
    """State: position [2], goal [2]; an action is a velocity; success within 0.05 of the goal."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._fault = str(task.option("fault", "none"))
        self._at = int(task.option("at", 5))
        self._state = np.zeros(4, dtype=np.float32)
        self._step = 0

    def reset(self, start: int, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        generator = np.random.default_rng(start_seed(self._task.name, start))
        self._state[:] = generator.uniform(-1, 1, 4)
        self._step = 0
        out["state"][...] = self._state

    def step(
        self, action: npt.NDArray[np.float32] | int, out: Mapping[str, npt.NDArray[np.generic]]
    ) -> tuple[float, bool, bool]:
        self._step += 1
        if self._step == self._at and self._fault == "raise":
            raise ZeroDivisionError("the gearbox fell off")
        if self._step == self._at and self._fault == "exit":
            os._exit(7)
        if self._step == self._at and self._fault == "freeze":
            time.sleep(0.15)
        if self._step == self._at and self._fault == "hang":
            time.sleep(3600)
        self._state[:2] += 0.1 * np.asarray(action, dtype=np.float32)
        out["state"][...] = self._state
        if self._step == self._at and self._fault == "nan":
            out["state"][1] = np.nan
        if self._step == self._at and self._fault == "mark":
            out["state"][0] = 2 * MARK
        distance = float(np.linalg.norm(self._state[:2] - self._state[2:]))
        return -distance, False, distance < 0.05

    def render(self) -> npt.NDArray[np.uint8]:
        raise UnsupportedError("the bench has no camera")

    def close(self) -> None:
        pass


class ImageEnvironment:
    """The image says which of three choices is right next; success after `RIGHT` right ones in a row."""

    def __init__(self, task: Task) -> None:
        self._generator = np.random.default_rng(0)
        self._wanted = self._right = 0

    def reset(self, start: int, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._generator = np.random.default_rng(start)
        self._right = 0
        self._show(out)

    def step(
        self, action: npt.NDArray[np.float32] | int, out: Mapping[str, npt.NDArray[np.generic]]
    ) -> tuple[float, bool, bool]:
        self._right = self._right + 1 if action == self._wanted else 0
        self._show(out)
        return float(self._right > 0), False, self._right >= RIGHT

    def _show(self, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._wanted = int(self._generator.integers(3))
        out["pixels"][...] = self._generator.integers(0, 256, IMAGE, dtype=np.uint8)
        out["pixels"][0, 0, 0] = 100 * self._wanted

    def render(self) -> npt.NDArray[np.uint8]:
        raise UnsupportedError("the bench has no camera")

    def close(self) -> None:
        pass


class BenchSuite:
    """Suite "bench"."""

    name = "bench"
    supports_starts = True
    has_experts = False
    environment_megabytes = 0.1

    def names(self) -> tuple[str, ...]:
        return ("bench/point", "bench/twin", "bench/image")

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        shown = name == "bench/image"
        return Task(
            name=name,
            observation=ObservationSpec(pixels=IMAGE) if shown else ObservationSpec(state=4),
            action=ActionSpec(discrete=3) if shown else ActionSpec(continuous=2),
            simulator_rate_hz=RATE_HZ,
            action_repeat=1,
            horizon_decisions=int((options or {}).get("horizon", HORIZON)),
            score=Score("success"),
            reward_version="bench-1",
            options=tuple((options or {}).items()),
        )

    def environment(self, task: Task) -> Environment:
        return ImageEnvironment(task) if task.name == "bench/image" else PointEnvironment(task)

    def expert(self, task: Task) -> Expert:
        raise UnsupportedError("the bench has no expert")


SUITE = BenchSuite()
