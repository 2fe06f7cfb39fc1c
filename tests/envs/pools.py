"""EnvPool's copies in a test's hands, and official simulators that begin where a copy begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.tasks import Task, VectorEnvironment

from .twister import TwisterStream


def require_envpool() -> None:
    """Skips a test where EnvPool is missing."""
    pytest.importorskip(
        "envpool", reason="needs EnvPool; mend: .venv/bin/pip install -c constraints.txt envpool"
    )


@dataclass
class Batch:
    """A vector environment and the buffers that it writes into."""

    task: Task
    copies: int
    environment: VectorEnvironment
    out: dict[str, npt.NDArray[Any]] = field(init=False)
    reward: npt.NDArray[np.float32] = field(init=False)
    terminated: npt.NDArray[np.bool_] = field(init=False)
    success: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        spec = self.task.observation
        self.out = {}
        if spec.state is not None:
            self.out["state"] = np.full((self.copies, spec.state), np.nan, dtype=np.float32)
        if spec.pixels is not None:
            self.out["pixels"] = np.full((self.copies, *spec.pixels), 255, dtype=np.uint8)
        self.reward = np.full(self.copies, np.nan, dtype=np.float32)
        self.terminated = np.ones(self.copies, dtype=bool)
        self.success = np.ones(self.copies, dtype=bool)

    def reset(self, *copies: int) -> None:
        """Resets these copies, or all of them."""
        chosen = np.array(copies or range(self.copies), dtype=np.int64)
        self.environment.reset(chosen, np.zeros(len(chosen), dtype=np.int64), self.out)

    def step(self, action: npt.NDArray[Any]) -> None:
        """Plays `action` [M, ...], or one copy's action in every copy."""
        spec = self.task.action
        if spec.is_discrete:
            actions = np.broadcast_to(action, (self.copies,)).astype(np.int64)
        else:
            actions = np.broadcast_to(action, (self.copies, spec.continuous)).astype(np.float32)
        self.environment.step(actions, self.out, self.reward, self.terminated, self.success)


def smooth_actions(size: int, count: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Actions [count, size] that push in one direction for ten steps, with noise."""
    generator = np.random.default_rng(seed)
    directions = np.repeat(generator.uniform(-1.0, 1.0, (count // 10 + 1, size)), 10, axis=0)[:count]
    rows = directions + 0.3 * generator.normal(size=(count, size))
    return np.clip(rows, -1.0, 1.0).astype(np.float32)


def official_metaworld(short_name: str, seed: int) -> tuple[Any, npt.NDArray[np.float64]]:
    """The official simulator, reset to the positions that a copy seeded so draws first; the observation."""
    from mtrl.envs.metaworld.simulator import official_simulator

    simulator = official_simulator(short_name, "v2")
    simulator._partially_observable = False
    del simulator.sawyer_observation_space
    simulator._set_task_called = True
    simulator.seeded_rand_vec = True
    simulator.np_random = TwisterStream(seed)
    # the task draws, again and again where it wants positions apart, and keeps what it accepted
    simulator._freeze_rand_vec = False
    simulator.reset_model()
    simulator._freeze_rand_vec = True
    observation, _ = simulator.reset()
    return simulator, observation


def official_control(domain: str, task: str, seed: int) -> tuple[Any, Any]:
    """dm_control's environment, reset to the state that a copy seeded so draws first; the time step."""
    from mtrl.envs.dmc.simulator import load_simulator

    simulator = load_simulator(domain, task)
    simulator.task._random = TwisterStream(seed)
    return simulator, simulator.reset()


def flat(simulator: Any, observation: Any) -> npt.NDArray[np.float64]:
    """An observation of dm_control, flat."""
    return np.concatenate([np.ravel(observation[key]) for key in simulator.observation_spec()])
