"""A lane rebuilt from starts and actions goes on as if it had never been interrupted."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.errors import UnsupportedError
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, StartSchedule, TaskSet, TrainingStarts

from ..synthetic import CounterSuite, counter_task
from .helpers import lane_of


def books(lane: PythonLane) -> dict[str, list[object]]:
    """All that a reader of the lane can see, as lists."""
    arrays = ("reward", "terminated", "truncated", "success", "start_id", "episode_id", "active")
    return {name: getattr(lane, name).tolist() for name in arrays} | {
        "state": lane.observation["state"].tolist(),
        "finals": [(final.copy, final.observation["state"].tolist()) for final in lane.final_observations],
    }


def play(lane: PythonLane, generator: np.random.Generator, steps: int) -> list[dict[str, list[object]]]:
    trace = []
    for _ in range(steps):
        continuous = generator.uniform(-1, 1, (lane.copies, 4)).astype(np.float32)
        lane.step(continuous, np.zeros(lane.copies, dtype=np.int64))
        trace.append(books(lane))
    return trace


def schedule(kind: str) -> StartSchedule:
    if kind == "training":
        return TrainingStarts(copies=2, first_copy=1, total_copies=3, seed=1)
    return FixedStarts([[2, 5, 8], [11]])


@pytest.mark.parametrize("kind", ["training", "fixed"])
@pytest.mark.parametrize("interrupted_after", range(8))
def test_an_interrupted_lane_goes_on(kind: str, interrupted_after: int) -> None:
    def fresh() -> PythonLane:
        task = counter_task(horizon=5, success_at=2)
        return lane_of(schedule(kind), 2, task, first_copy=1, total_copies=3, success_tail=1)

    whole, first, second = fresh(), fresh(), fresh()
    generator = np.random.default_rng(0)
    whole.begin()
    expected = play(whole, generator, 10)

    generator = np.random.default_rng(0)
    first.begin()
    play(first, generator, interrupted_after)
    second.load_state_dict(first.state_dict())
    for name in ("state", "start_id", "episode_id", "active"):
        assert books(second)[name] == books(first)[name], f"{name} of the rebuilt lane"
    assert play(second, generator, 10 - interrupted_after) == expected[interrupted_after:]


def test_loading_forgets_what_the_lane_did_before() -> None:
    saved_lane, lane = lane_of([[2, 5]]), lane_of([[2, 5]], task=counter_task(horizon=4))
    saved_lane.begin()
    lane.begin()
    play(lane, np.random.default_rng(0), 4)
    lane.load_state_dict(saved_lane.state_dict())
    assert books(lane) == books(saved_lane)


def test_indices_are_replayed() -> None:
    task = counter_task("counter/frames", horizon=9)

    def fresh() -> PythonLane:
        environments = [CounterSuite().environment(task)]
        return PythonLane(task, 0, TaskSet([task]).layout, environments, FixedStarts([[2]]))

    lane, rebuilt = fresh(), fresh()
    lane.begin()
    for index in (2, 0, 1):
        lane.step(np.zeros((1, 0), dtype=np.float32), np.array([index]))
    saved = lane.state_dict()
    rebuilt.load_state_dict(saved)
    np.testing.assert_array_equal(rebuilt.observation["pixels"], lane.observation["pixels"])
    np.testing.assert_array_equal(rebuilt.state_dict()["actions"][0], [[2], [0], [1]])  # type: ignore[index]


def test_the_state_is_cut_at_the_episode() -> None:
    lane = lane_of(TrainingStarts(copies=1), 1, counter_task(horizon=3))
    lane.begin()
    play(lane, np.random.default_rng(0), 3 * 5 + 2)
    assert lane.state_dict()["actions"][0].shape == (2, 2)  # type: ignore[index]


def test_a_lane_without_starts_promises_no_resumption() -> None:
    lane = lane_of([[2]], supports_starts=False)
    lane.begin()
    with pytest.raises(UnsupportedError, match="cannot reset to a given start"):
        lane.state_dict()
