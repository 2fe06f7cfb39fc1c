"""Fragments, worked out by hand over the counting task."""

from __future__ import annotations

import numpy as np

from mtrl.rollout import LOG_PROBABILITY, Action, Fragment, PythonLane, StepRecorder, Version
from mtrl.tasks import FixedStarts, TaskSet, TrainingStarts

from ..synthetic import CounterSuite, counter_task
from .helpers import lane_of


def record(lane: PythonLane, steps: int, width: int = 4) -> Fragment:
    """Action t is 0.1 * (t + 1) everywhere; its log-probability is -t."""
    recorder = StepRecorder(lane, (LOG_PROBABILITY,), steps=steps)
    for t in range(steps):
        action = Action(
            continuous=np.full((lane.copies, width), 0.1 * (t + 1), dtype=np.float32),
            discrete=np.full(lane.copies, t, dtype=np.int64),
            state={},
            extras={"log_probability": np.full(lane.copies, -t, dtype=np.float32)},
        )
        recorder.before_step(action)
        lane.step(action.continuous, action.discrete)
        recorder.after_step()
    return recorder.fragment(Version(2, 7))


def test_a_fragment_by_hand() -> None:
    # copy 0 plays starts 0, 6, 12; copy 1 plays 3, 9, 15; success at 1 ends nothing
    lane = lane_of(TrainingStarts(copies=2), 2, counter_task(horizon=2, success_at=1))
    lane.begin()
    fragment = record(lane, 3)
    decisions = fragment.observations["state"][:, :, 0]
    np.testing.assert_array_equal(decisions, [[0, 0], [1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(fragment.observations["state"][:, :, 1], [[0, 3], [0, 3], [6, 9], [6, 9]])
    np.testing.assert_array_equal(fragment.reward, [[1, 1], [2, 2], [1, 1]])
    np.testing.assert_array_equal(fragment.truncated, [[0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(fragment.success, [[1, 1], [0, 0], [1, 1]])
    assert not fragment.terminated.any()
    np.testing.assert_array_equal(fragment.start_id, [[0, 3], [0, 3], [6, 9], [6, 9]])
    np.testing.assert_array_equal(fragment.episode_id, [[0, 1], [0, 1], [2, 3], [2, 3]])
    np.testing.assert_array_equal(fragment.extras["log_probability"], [[0, 0], [-1, -1], [-2, -2]])
    np.testing.assert_array_equal(fragment.discrete, [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_allclose(fragment.continuous[:, 0, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(fragment.final_index, [[1, 0], [1, 1]])
    np.testing.assert_allclose(fragment.final_observations["state"], [[2, 0, 0.6, 0, 0], [2, 3, 0.6, 0, 0]])
    assert (fragment.task_index, fragment.policy_version, fragment.steps) == (0, (2, 7), 6)


def test_successors_are_true_also_where_an_episode_ended() -> None:
    lane = lane_of(TrainingStarts(copies=2), 2, counter_task(horizon=2))
    lane.begin()
    fragment = record(lane, 3)
    successors = fragment.next_observations()["state"]
    # decision 1 ended both episodes: its successor is t = 2 of the same start, not t = 0 of the next
    np.testing.assert_array_equal(successors[:, :, 0], [[1, 1], [2, 2], [1, 1]])
    np.testing.assert_array_equal(successors[:, :, 1], [[0, 3], [0, 3], [6, 9]])
    np.testing.assert_array_equal(fragment.observations["state"][2, :, 0], [0, 0])


def test_fragments_without_an_end() -> None:
    lane = lane_of(TrainingStarts(copies=1), 1, counter_task(horizon=9))
    lane.begin()
    fragment = record(lane, 2)
    assert fragment.final_index.shape == (0, 2)
    assert fragment.final_observations["state"].shape == (0, 5)
    np.testing.assert_array_equal(fragment.next_observations()["state"][:, 0, 0], [1, 2])


def test_the_last_row_is_what_the_next_fragment_sees_first() -> None:
    lane = lane_of(TrainingStarts(copies=2), 2, counter_task(horizon=3))
    lane.begin()
    first, second = record(lane, 4), record(lane, 4)
    np.testing.assert_array_equal(first.observations["state"][-1], second.observations["state"][0])
    np.testing.assert_array_equal(second.episode_id[0], first.episode_id[-1])


def test_a_fragment_is_not_overwritten_by_later_steps() -> None:
    lane = lane_of(TrainingStarts(copies=1), 1, counter_task(horizon=3))
    lane.begin()
    fragment = record(lane, 4)
    before = {
        name: np.array(value) for name, value in vars(fragment).items() if isinstance(value, np.ndarray)
    }
    state = fragment.observations["state"].copy()
    record(lane, 4)
    np.testing.assert_array_equal(fragment.observations["state"], state)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(fragment, name), value)


def test_a_state_task_beside_pixel_tasks_carries_no_pixels() -> None:
    task = counter_task(horizon=1)
    layout = TaskSet([task, counter_task("counter/frames")]).layout
    lane = PythonLane(task, 0, layout, [CounterSuite().environment(task)], FixedStarts([[2, 5, 8]]))
    lane.begin()
    fragment = record(lane, 2, width=2)
    assert list(fragment.observations) == list(fragment.final_observations) == ["state"]
    assert list(fragment.next_observations()) == ["state"]
