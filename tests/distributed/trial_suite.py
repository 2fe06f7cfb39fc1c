"""A suite whose tasks misbehave on purpose, installed as a third party's plug-in would be.

Every reset adds a line "pid task start" to the file `resets` in the folder TRIAL_FOLDER.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl.errors import UnknownNameError, UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Option, Score, Task, start_seed

TROUBLE_AT = 3
"""The decision at which a task does what its name says."""


@dataclass(frozen=True)
class Shape:
    state: int
    action: int
    horizon: int = 7
    seconds: float = 0.0
    """Time a step takes."""


TASKS = {
    "trial/walk": Shape(state=3, action=2),
    "trial/reach": Shape(state=5, action=1, horizon=11),
    "trial/slow": Shape(state=4, action=3, horizon=10, seconds=0.01),
    "trial/raises": Shape(state=3, action=2),
    "trial/raises-once": Shape(state=3, action=2),
    "trial/hangs-once": Shape(state=3, action=2),
    "trial/crashes": Shape(state=3, action=2),
    "trial/exits": Shape(state=3, action=2),
    "trial/interrupts": Shape(state=3, action=2),
    "trial/refuses": Shape(state=3, action=2),
    "trial/bug": Shape(state=3, action=2),
}


def folder() -> Path:
    return Path(os.environ["TRIAL_FOLDER"])


def first_time(name: str) -> bool:
    """True once per folder, over all processes."""
    try:
        (folder() / name.replace("/", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class TrialEnvironment:
    """A damped point whose state drifts with the action; all of it a function of start and actions."""

    def __init__(self, task: Task) -> None:
        self.task, self.shape = task, TASKS[task.name]
        self.state = np.zeros(self.shape.state)
        self.decisions = 0

    def reset(self, start: int, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        with (folder() / "resets").open("a") as log:
            log.write(f"{os.getpid()} {self.task.name} {start}\n")
        self.state = np.random.default_rng(start_seed(self.task.name, start)).normal(size=self.shape.state)
        self.decisions = 0
        out["state"][:] = self.state

    def step(
        self, action: npt.NDArray[np.float32] | int, out: Mapping[str, npt.NDArray[np.generic]]
    ) -> tuple[float, bool, bool]:
        assert isinstance(action, np.ndarray)
        self.decisions += 1
        if self.decisions == TROUBLE_AT:
            self.trouble()
        time.sleep(self.shape.seconds)
        self.state = 0.9 * self.state
        self.state[: len(action)] += 0.5 * action
        out["state"][:] = self.state
        return float(-np.abs(self.state).sum()), False, bool(np.abs(self.state).max() < 0.4)

    def trouble(self) -> None:
        name = self.task.name
        if name == "trial/raises" or (name == "trial/raises-once" and first_time(name)):
            raise ZeroDivisionError("the simulator's own words")
        if name == "trial/hangs-once" and first_time(name):
            time.sleep(600)
        if name == "trial/crashes":
            # in this thread, which gets no further, as of a true fault
            signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
        if name == "trial/exits":
            raise SystemExit(0)
        if name == "trial/interrupts":
            raise KeyboardInterrupt
        if name == "trial/refuses":
            raise UnsupportedError("this combination is not offered")

    def render(self) -> npt.NDArray[np.uint8]:
        return np.zeros((2, 2, 3), dtype=np.uint8)

    def close(self) -> None:
        with (folder() / "closed").open("a") as log:
            log.write(f"{os.getpid()} {self.task.name}\n")


class TrialExpert:
    """Pushes the state towards zero."""

    def __init__(self, task: Task) -> None:
        self.name, self.size = task.name, TASKS[task.name].action
        self.sign = 1.0

    def reset(self, generator: np.random.Generator) -> None:
        self.sign = float(generator.choice([-1.0, 1.0]))

    def act(self, observation: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
        if self.name == "trial/bug":
            raise IndexError("a mistake in our own code")
        return (-0.3 * self.sign * observation["state"][: self.size]).astype(np.float32)


class TrialSuite:
    name = "trial"
    supports_starts = True
    has_experts = True
    environment_megabytes = 1.0

    def names(self) -> tuple[str, ...]:
        return tuple(TASKS)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        if name not in TASKS:
            raise UnknownNameError("task", name, TASKS)
        shape = TASKS[name]
        return Task(
            name=name,
            observation=ObservationSpec(state=shape.state),
            action=ActionSpec(continuous=shape.action),
            simulator_rate_hz=10.0,
            action_repeat=1,
            horizon_decisions=shape.horizon,
            score=Score("success"),
            reward_version="1",
        )

    def environment(self, task: Task) -> TrialEnvironment:
        return TrialEnvironment(task)

    def expert(self, task: Task) -> TrialExpert:
        return TrialExpert(task)


SUITE = TrialSuite()
