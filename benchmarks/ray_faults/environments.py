"""Environments that misbehave once, on purpose; their ids are `ray_faults.environments:NAME-v0`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

FOLDER = "RAY_FAULTS_FOLDER"
"""Environment variable of the folder where each kind leaves a mark when it misbehaves."""
TROUBLE_AT = 400
"""Decisions of an environment before it does, more than are made to look at a new one."""
LEAK_BYTES = 32 * 2**20
SLEEP_SECONDS = 0.01
KINDS = ("raises", "hangs", "nan", "leaks")

State = npt.NDArray[np.float32]


class Misbehaving(gymnasium.Env[State, State]):
    """A damped point of one dimension."""

    def __init__(self, kind: str = "") -> None:
        """`kind` of KINDS, "sleeps" for steps that take ten milliseconds without work, or none."""
        self.observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._kind, self._leaked = kind, list[npt.NDArray[np.uint8]]()
        self._state, self._decisions = np.zeros(2, np.float32), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[State, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.np_random.normal(size=2).astype(np.float32)
        return self._state.copy(), {}

    def step(self, action: State) -> tuple[State, float, bool, bool, dict[str, Any]]:
        self._decisions += 1
        if self._kind == "sleeps":
            time.sleep(SLEEP_SECONDS)
        self._state = (0.9 * self._state + 0.1 * action).astype(np.float32)
        reward = -float(np.abs(self._state).sum())
        if self._kind in KINDS and self._decisions >= TROUBLE_AT and self._begins():
            reward = self._trouble(reward)
        return self._state.copy(), reward, False, False, {}

    def _begins(self) -> bool:
        """True the first time in any process; for a leak in that process from then on."""
        mark = Path(os.environ[FOLDER], self._kind)
        try:
            with mark.open("x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return self._kind == "leaks" and mark.read_text(encoding="utf-8") == str(os.getpid())
        return True

    def _trouble(self, reward: float) -> float:
        if self._kind == "raises":
            raise ZeroDivisionError("the environment's own words")
        if self._kind == "hangs":
            time.sleep(3600)
        if self._kind == "leaks":
            self._leaked.append(np.ones(LEAK_BYTES, dtype=np.uint8))
        return float("nan") if self._kind == "nan" else reward


for name in (*KINDS, "sleeps"):
    gymnasium.register(
        id=f"{name.title()}-v0", entry_point=Misbehaving, kwargs={"kind": name}, max_episode_steps=50
    )


def task_name(kind: str) -> str:
    """The task of a kind."""
    return f"gym/ray_faults.environments:{kind.title()}-v0"
