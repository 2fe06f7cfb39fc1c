"""Playing an environment by hand: buffers, fixed actions and whole trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Environment, Task

Buffers = Mapping[str, npt.NDArray[np.generic]]
Action = npt.NDArray[np.float32] | int


def buffers(task: Task) -> Buffers:
    """Buffers of the task's own sizes, filled with values that no observation has."""
    made: dict[str, npt.NDArray[np.generic]] = {}
    if task.observation.state is not None:
        made["state"] = np.full(task.observation.state, np.nan, dtype=np.float32)
    if task.observation.pixels is not None:
        made["pixels"] = np.full(task.observation.pixels, 255, dtype=np.uint8)
    return MappingProxyType(made)


def fixed_actions(task: Task, count: int, seed: int = 0) -> list[Action]:
    """The same `count` random actions whenever the task and seed are the same."""
    generator = np.random.default_rng(seed)
    if task.action.is_discrete:
        return [int(index) for index in generator.integers(0, task.action.discrete, count)]
    rows = generator.uniform(-1.0, 1.0, (count, task.action.continuous)).astype(np.float32)
    return list(rows)


@dataclass(frozen=True)
class Trajectory:
    """What an episode showed."""

    observations: list[dict[str, npt.NDArray[np.generic]]]
    """T + 1 observations."""
    outcomes: list[tuple[float, bool, bool]]
    """Reward, terminated and success of each step."""

    def bucket(self, name: str) -> npt.NDArray[np.generic]:
        """All observations of a bucket, [T + 1, ...]."""
        return np.stack([observation[name] for observation in self.observations])


def first_observation(environment: Environment, task: Task, start: int) -> dict[str, npt.NDArray[np.generic]]:
    """The observation that a reset to `start` writes."""
    out = buffers(task)
    environment.reset(start, out)
    return {bucket: values.copy() for bucket, values in out.items()}


def play(environment: Environment, task: Task, start: int, actions: Sequence[Action]) -> Trajectory:
    """Resets to `start` and steps until the actions run out or the episode terminates.

    Every observation is written into buffers of its own, so an environment that reads back what it
    wrote earlier is found out.
    """
    observations = [first_observation(environment, task, start)]
    outcomes = []
    for action in actions:
        out = buffers(task)
        outcomes.append(environment.step(action, out))
        observations.append(dict(out))
        if outcomes[-1][1]:
            break
    return Trajectory(observations, outcomes)


def same(one: Buffers, other: Buffers) -> bool:
    """Whether two observations are equal bit for bit."""
    return one.keys() == other.keys() and all(
        values.dtype == other[bucket].dtype and values.tobytes() == other[bucket].tobytes()
        for bucket, values in one.items()
    )


def assert_same_trajectory(one: Trajectory, other: Trajectory) -> None:
    """Equal bit for bit: rewards, flags and every observation."""
    assert one.outcomes == other.outcomes
    assert len(one.observations) == len(other.observations)
    for step, (first, second) in enumerate(zip(one.observations, other.observations, strict=True)):
        assert same(first, second), f"observation {step} differs"
