"""Trajectories for tests, drawn from a seed, of tasks of each kind."""

from collections.abc import Sequence

import numpy as np

from mtrl.data import Trajectories
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task


def task_of(name: str, observation: ObservationSpec, action: ActionSpec) -> Task:
    return Task(
        name=name,
        observation=observation,
        action=action,
        simulator_rate_hz=50.0,
        action_repeat=1,
        horizon_decisions=100,
        score=Score("success"),
        reward_version="test-v1",
    )


STATE = task_of("made/state-v3", ObservationSpec(state=5), ActionSpec(continuous=2))
PIXELS = task_of("made/Pixels", ObservationSpec(pixels=(4, 36, 40)), ActionSpec(discrete=6))
BOTH = task_of("made/both", ObservationSpec(state=3, pixels=(36, 40, 3)), ActionSpec(continuous=1))


def trajectories_of(task: Task, lengths: Sequence[int], seed: int = 0) -> Trajectories:
    """Random arrays in the task's shapes; every episode ends truncated, or terminated if its index is odd."""
    generator = np.random.default_rng(seed)
    steps, rows = sum(lengths), sum(lengths) + len(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    observations: dict[str, np.ndarray] = {}
    if task.observation.state is not None:
        observations["state"] = generator.normal(size=(rows, task.observation.state)).astype(np.float32)
    if task.observation.pixels is not None:
        observations["pixels"] = generator.integers(0, 256, (rows, *task.observation.pixels), dtype=np.uint8)
    if task.action.is_discrete:
        actions = generator.integers(0, task.action.discrete, steps)
        labels = generator.integers(0, task.action.discrete, steps)
    else:
        actions = generator.uniform(-1, 1, (steps, task.action.continuous)).astype(np.float32)
        labels = generator.uniform(-1, 1, (steps, task.action.continuous)).astype(np.float32)
    terminated, truncated = np.zeros(steps, dtype=bool), np.zeros(steps, dtype=bool)
    terminated[offsets[1:][1::2] - 1] = True
    truncated[offsets[1:][0::2] - 1] = True
    return Trajectories(
        observations=observations,
        actions=actions,
        labels=labels,
        rewards=generator.normal(size=steps).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        success=generator.random(steps) < 0.5,
        offsets=offsets,
        start_id=3 * generator.integers(0, 2**40, len(lengths)),
    )


def assert_equal(left: Trajectories, right: Trajectories) -> None:
    """Equal in every bit and dtype."""
    assert list(left.observations) == list(right.observations)
    names = ("actions", "labels", "rewards", "terminated", "truncated", "success", "offsets", "start_id")
    pairs = [(name, getattr(left, name), getattr(right, name)) for name in names]
    pairs += [(bucket, rows, right.observations[bucket]) for bucket, rows in left.observations.items()]
    for name, one, other in pairs:
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.tobytes() == other.tobytes(), name
