"""A suite of counting environments whose every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import UnknownNameError, UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Expert, Option, Score, Task

Buffers = Mapping[str, npt.NDArray[np.generic]]

SPECS = {
    "counter/short": (ObservationSpec(state=3), ActionSpec(continuous=2)),
    "counter/long": (ObservationSpec(state=5), ActionSpec(continuous=4)),
    "counter/frames": (ObservationSpec(pixels=(2, 3, 3)), ActionSpec(discrete=3)),
}


class CounterEnvironment:
    """Observes (decision t, start, sum of all actions, 0 ...); decision t pays a reward of t.

    Options of the task, all decisions counted from 1: `terminate_at`, `success_at` (the signal is on
    after that decision alone, and with `success_start` on that start alone), `fail_at` (raises),
    `nan_at` (`nan_field` says where); with `fail_start` both on that start alone.
    """

    def __init__(self, task: Task, suite: CounterSuite) -> None:
        self._task, self._suite = task, suite
        self.t, self.start, self.total = 0, -1, 0.0
        self.closed = False

    def reset(self, start: int, out: Buffers) -> None:
        self.t, self.start, self.total = 0, start, 0.0
        if self._fails("fail_at"):
            raise RuntimeError("the arm fell off")
        self._write(out)

    def step(self, action: npt.NDArray[np.float32] | int, out: Buffers) -> tuple[float, bool, bool]:
        self.t += 1
        if self._fails("fail_at") or self._suite.failures > 0:
            self._suite.failures = max(0, self._suite.failures - 1)
            raise RuntimeError("the arm fell off")
        self.total += float(np.sum(action))
        self._write(out)
        reward = float(self.t)
        if self._fails("nan_at"):
            if self._task.option("nan_field", "state") == "reward":
                reward = float("nan")
            else:
                out["state"][1] = np.nan
        return (
            reward,
            self._task.option("terminate_at", -1) == self.t,
            self._task.option("success_at", -1) == self.t
            and self._task.option("success_start", self.start) == self.start,
        )

    def _fails(self, option: str) -> bool:
        here = self._task.option("fail_start", self.start) == self.start
        return here and self._task.option(option, -1) == self.t

    def render(self) -> npt.NDArray[np.uint8]:
        raise UnsupportedError("a counter has no image")

    def close(self) -> None:
        self.closed = True

    def _write(self, out: Buffers) -> None:
        if "state" in out:
            out["state"][:3] = self.t, self.start, self.total
        if "pixels" in out:
            out["pixels"][0], out["pixels"][1] = self.t, self.start % 256


class CountingExpert:
    """Plays its mode, +0.25 or -0.25, in every dimension; draws the mode at reset."""

    def __init__(self, size: int) -> None:
        self._size, self._mode = size, 0.0

    def reset(self, generator: np.random.Generator) -> None:
        self._mode = 0.25 if generator.random() < 0.5 else -0.25

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        assert observation["state"].shape[0] in (3, 5), "experts see unpadded states"
        return np.full(self._size, self._mode, dtype=np.float32)


@dataclass
class CounterSuite:
    """The counting tasks behind the suite contract; remembers what it built."""

    name: str = "counter"
    supports_starts: bool = True
    has_experts: bool = True
    environment_megabytes: float = 0.0
    failures: int = 0
    """So many of the next steps raise, whatever environment they fall on."""
    built: list[CounterEnvironment] = field(default_factory=list)

    def names(self) -> tuple[str, ...]:
        return tuple(SPECS)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        return {"counters": ("counter/long", "counter/short"), "everything": tuple(SPECS)}

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        if name not in SPECS:
            raise UnknownNameError("task", name, SPECS)
        return counter_task(name, **dict(options or {}))

    def environment(self, task: Task) -> CounterEnvironment:
        self.built.append(CounterEnvironment(task, self))
        return self.built[-1]

    def expert(self, task: Task) -> Expert:
        if task.action.is_discrete:
            raise UnsupportedError(f"task {task.name} has no expert")
        return CountingExpert(task.action.continuous)


def counter_task(
    name: str = "counter/short", *, horizon: int = 4, end_on_success: bool = False, **options: Option
) -> Task:
    """A counting task; `options` as `CounterEnvironment` reads them."""
    observation, action = SPECS[name]
    return Task(
        name=name,
        observation=observation,
        action=action,
        simulator_rate_hz=40.0,
        action_repeat=2,
        horizon_decisions=horizon,
        score=Score("success"),
        reward_version="1",
        end_on_success=end_on_success,
        options=tuple(options.items()),
    )


@contextmanager
def counter_suite(**settings: object) -> Iterator[CounterSuite]:
    """The suite, known to the registry while the block lasts."""
    suite = CounterSuite(**settings)  # type: ignore[arg-type]
    registry.register("suite", suite.name, suite)
    try:
        yield suite
    finally:
        registry.unregister("suite", suite.name)
