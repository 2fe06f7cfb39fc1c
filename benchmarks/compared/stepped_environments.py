"""What the stepping benchmark steps: our lane, bare loops, and the peers' vector environments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import metaworld
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit

from mtrl import registry
from mtrl.rollout import LaneAssignment, PolicySnapshot, RolloutWorker
from mtrl.tasks import TaskSet

SHORT = "reach-v3"


class LaneStepper:
    """One lane in this process, stepped with actions drawn beforehand."""

    def __init__(self, name: str, copies: int, backend: str = "python") -> None:
        task = registry.task(name)
        tasks = TaskSet([task])
        self._worker = RolloutWorker(tasks, {task.suite: backend})
        assignment = LaneAssignment(0, copies, 0, copies)
        self._worker.open(assignment, PolicySnapshot("random"), 0, stagger=True)
        self._lane = self._worker.lane(assignment)
        generator = np.random.default_rng(0)
        width, choices = tasks.layout.continuous_size, max(1, task.action.discrete)
        self._continuous = generator.uniform(-1, 1, (64, copies, width)).astype(np.float32)
        self._discrete = generator.integers(0, choices, (64, copies))

    def __enter__(self) -> LaneStepper:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def begin(self) -> None:
        """Resets every copy, always to the same starts."""
        self._lane.schedule.load_state_dict({"used": [0] * self._lane.copies})
        self._lane.begin()

    def seconds_per_step(self, steps: int) -> float:
        """Seconds a step and copy."""
        began = time.perf_counter()
        for index in range(steps):
            self._lane.step(self._continuous[index % 64], self._discrete[index % 64])
        return (time.perf_counter() - began) / steps / self._lane.copies

    def lane_episode(self, steps: int) -> float:
        """Seconds a step through the lane, from the beginning of an episode; the reset is not measured."""
        self.begin()
        return self.seconds_per_step(steps)

    def bare_episode(self, steps: int) -> float:
        """The same episode with the simulator's own `step`, on the same object; one copy of Meta-World."""
        self.begin()
        environment: Any = self._lane._environments[0]
        return _bare(environment._simulator, self._continuous[:, 0], steps)


def official_episode(simulator: Any, steps: int) -> float:  # noqa: ANN401 - one of fifty classes
    """Seconds per `env.step` of metaworld's own class within one episode."""
    simulator.reset()
    return _bare(simulator, np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype(np.float32), steps)


def _bare(simulator: Any, actions: npt.NDArray[np.float32], steps: int) -> float:  # noqa: ANN401
    began = time.perf_counter()
    for index in range(steps):
        simulator.step(actions[index % 64])
    return (time.perf_counter() - began) / steps


def bare_cartpole(steps: int) -> Callable[[], float]:
    """Seconds per step of gymnasium's CartPole without wrappers, its resets included."""
    environment = gymnasium.make("CartPole-v1", disable_env_checker=True).unwrapped
    environment.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, 64).tolist()

    def loop() -> float:
        began = time.perf_counter()
        for index in range(steps):
            _, _, terminated, truncated, _ = environment.step(actions[index % 64])
            if terminated or truncated:
                environment.reset()
        return (time.perf_counter() - began) / steps

    return loop


def official_metaworld() -> Any:  # noqa: ANN401 - one of fifty classes without types
    """Metaworld's own environment with one of its training goals, no wrappers."""
    random.seed(0)
    benchmark = metaworld.MT1(SHORT, seed=0)
    environment = benchmark.train_classes[SHORT]()
    environment.set_task(benchmark.train_tasks[0])
    environment.reset()
    return environment


def _limited_metaworld() -> gymnasium.Env[Any, Any]:
    return TimeLimit(official_metaworld(), 500)


def _limited_cartpole() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("CartPole-v1", disable_env_checker=True)


def async_metaworld(copies: int) -> gymnasium.vector.AsyncVectorEnv:
    """One process per copy, with the fewest wrappers that a 500-step episode needs."""
    return gymnasium.vector.AsyncVectorEnv([partial(_limited_metaworld)] * copies)


def async_cartpole(copies: int) -> gymnasium.vector.AsyncVectorEnv:
    """One process per copy."""
    return gymnasium.vector.AsyncVectorEnv([partial(_limited_cartpole)] * copies)
