"""Small synthetic demonstrations: a one-dimensional choice that both agents and students are shown."""

import numpy as np

from mtrl.data import Trajectories
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet


def task(name: str, state: int, action: int) -> Task:
    """A task that no suite serves; only its sizes matter."""
    return Task(
        name=name,
        observation=ObservationSpec(state=state),
        action=ActionSpec(continuous=action),
        simulator_rate_hz=10.0,
        action_repeat=1,
        horizon_decisions=10,
        score=Score("success"),
        reward_version="1",
    )


def choice_tasks() -> TaskSet:
    """Two tasks of different sizes."""
    return TaskSet([task("made/choice", 2, 1), task("made/follow", 3, 2)])


def choice_data(episodes: int = 40, length: int = 6) -> dict[int, Trajectories]:
    """Task 0: every episode goes +0.8 or -0.8 throughout, evenly. Task 1: the action is the state's
    first two entries.
    """
    draws = np.random.default_rng(0)
    signs = np.where(np.arange(episodes) % 2 == 0, 0.8, -0.8)
    first_labels = np.repeat(signs, length).astype(np.float32)[:, None]
    first_states = draws.normal(size=(episodes * (length + 1), 2)).astype(np.float32)
    second_states = draws.uniform(-0.9, 0.9, size=(episodes * (length + 1), 3)).astype(np.float32)
    kept = np.arange(episodes * (length + 1)).reshape(episodes, length + 1)[:, :-1].ravel()
    return {
        0: trajectories(first_states, first_labels, episodes, length),
        1: trajectories(second_states, second_states[kept, :2], episodes, length),
    }


def trajectories(states: np.ndarray, labels: np.ndarray, episodes: int, length: int) -> Trajectories:
    """Episodes of equal length."""
    count = episodes * length
    ends = np.arange(count) % length == length - 1
    return Trajectories(
        observations={"state": states},
        actions=labels,
        labels=labels,
        rewards=np.zeros(count, dtype=np.float32),
        terminated=np.zeros(count, dtype=bool),
        truncated=ends,
        success=ends,
        offsets=np.arange(episodes + 1) * length,
        start_id=np.arange(episodes),
    )
