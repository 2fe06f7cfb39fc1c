"""Lanes and fragments of the three tasks, checked against the bare environments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mtrl import registry
from mtrl.rollout import Acting, Fragment, LaneAssignment, RolloutWorker
from mtrl.tasks import Split, TaskSet, split_of

from ..walk import WALK
from .conftest import COPIES, HORIZON

STEPS = 2 * HORIZON + 2


def assert_equal(one: Fragment, other: Fragment) -> None:
    for name, values in vars(one).items():
        if isinstance(values, dict):
            assert values.keys() == getattr(other, name).keys()
            for bucket, rows in values.items():
                np.testing.assert_array_equal(rows, getattr(other, name)[bucket], err_msg=f"{name}.{bucket}")
        else:
            np.testing.assert_array_equal(values, getattr(other, name), err_msg=name)


@dataclass
class Collected:
    """Two successive fragments of a lane, and the lane's state between them."""

    fragments: tuple[Fragment, Fragment]
    between: list[dict[str, object]]


@pytest.fixture(scope="module")
def collected() -> dict[int, Collected]:
    """What each task's lane collected, filled when first needed."""
    return {}


@pytest.fixture
def gathered(collected: dict[int, Collected], worker: RolloutWorker, lane: LaneAssignment) -> Collected:
    """What the lane, opened with seed 5, collected."""
    if lane.task_index not in collected:
        worker.open(lane, WALK, seed=5)
        first = worker.collect(lane, STEPS, WALK, acting=Acting(explore=True))
        between = [entry for entry in worker.lanes_state() if entry["task_index"] == lane.task_index]
        second = worker.collect(lane, STEPS, WALK, acting=Acting(explore=True))
        collected[lane.task_index] = Collected((first, second), between)
    return collected[lane.task_index]


@pytest.fixture
def fragments(gathered: Collected) -> tuple[Fragment, Fragment]:
    """Two successive fragments of the lane."""
    return gathered.fragments


def test_fragments_are_time_major_and_padded(
    mixed: TaskSet, fragments: tuple[Fragment, Fragment], task_index: int
) -> None:
    fragment, task, layout = fragments[0], mixed[task_index], mixed.layout
    assert (fragment.task_index, fragment.policy_version.number, fragment.steps) == (
        task_index,
        2,
        STEPS * COPIES,
    )
    assert tuple(fragment.observations) == task.observation.buckets
    for bucket, rows in fragment.observations.items():
        assert rows.shape == (STEPS + 1, COPIES, *layout.bucket_shape(bucket))
        assert rows.dtype == layout.bucket_dtype(bucket)
        assert rows.flags["C_CONTIGUOUS"]
    if "state" in fragment.observations:
        outside = ~layout.state_mask[task_index]
        assert not fragment.observations["state"][..., outside].any()
        assert not fragment.final_observations["state"][..., outside].any()
    assert fragment.continuous.shape == (STEPS, COPIES, 4)
    assert not fragment.continuous[..., ~layout.continuous_mask[task_index]].any()
    assert fragment.discrete.shape == fragment.extras["log_probability"].shape == (STEPS, COPIES)
    assert layout.discrete_tasks[task_index] == fragment.discrete.any()
    assert fragment.discrete.max() < max(task.action.discrete, 1)


def test_the_clock_truncates_and_terminates_nothing(fragments: tuple[Fragment, Fragment]) -> None:
    fragment = fragments[0]
    ends = [HORIZON - 1, 2 * HORIZON - 1]
    expected = np.zeros((STEPS, COPIES), dtype=bool)
    expected[ends] = True
    np.testing.assert_array_equal(fragment.truncated, expected)
    assert not fragment.terminated.any()
    assert fragment.final_index.tolist() == [[t, copy] for t in ends for copy in range(COPIES)]


def test_copies_train_on_starts_of_their_own(fragments: tuple[Fragment, Fragment]) -> None:
    starts, episodes = (
        np.concatenate([getattr(fragment, name) for fragment in fragments])
        for name in ("start_id", "episode_id")
    )
    assert {split_of(int(start)) for start in np.unique(starts)} == {Split.TRAIN}
    assert not set(starts[:, 0]) & set(starts[:, 1])
    # one start per episode, counted through from fragment to fragment
    assert len(np.unique(starts)) == len(np.unique(episodes)) == COPIES * -(-2 * STEPS // HORIZON)


def test_fragments_tell_what_the_simulator_did(
    mixed: TaskSet, fragments: tuple[Fragment, Fragment], task_index: int
) -> None:
    """Replays copy 1 on a bare environment: every observation, reward and last observation is equal."""
    task, copy = mixed[task_index], 1
    environment = registry.suite(task.suite).environment(task)
    out = {
        bucket: np.zeros(shape, dtype=kind)
        for bucket, shape, kind in (
            ("state", task.observation.state, np.float32),
            ("pixels", task.observation.pixels, np.uint8),
        )
        if shape is not None
    }
    fragment = fragments[0]
    finals = {tuple(at): row for row, at in enumerate(fragment.final_index.tolist())}
    successors = fragment.next_observations()
    for t in range(STEPS):
        if t % HORIZON == 0:
            environment.reset(int(fragment.start_id[t, copy]), out)
        for bucket, row in out.items():
            np.testing.assert_array_equal(fragment.observations[bucket][t, copy][cut(bucket, row)], row)
        executed = fragment.continuous[t, copy, : task.action.continuous]
        action = int(fragment.discrete[t, copy]) if task.action.is_discrete else executed.copy()
        reward, terminated, success = environment.step(action, out)
        assert np.float32(reward) == fragment.reward[t, copy]
        assert (terminated, success) == (fragment.terminated[t, copy], fragment.success[t, copy])
        for bucket, row in out.items():
            np.testing.assert_array_equal(successors[bucket][t, copy][cut(bucket, row)], row)
            if (t, copy) in finals:
                last = fragment.final_observations[bucket][finals[t, copy]]
                np.testing.assert_array_equal(last[cut(bucket, row)], row)
    environment.close()


def cut(bucket: str, native: np.ndarray) -> slice:
    """The task's own part of a padded row."""
    return slice(len(native)) if bucket == "state" else slice(None)


def test_fragments_follow_on_each_other(fragments: tuple[Fragment, Fragment]) -> None:
    first, second = fragments
    for bucket, rows in first.observations.items():
        np.testing.assert_array_equal(rows[-1], second.observations[bucket][0])


def test_results_do_not_depend_on_who_hosts_a_copy(
    mixed: TaskSet, fragments: tuple[Fragment, Fragment], task_index: int
) -> None:
    """Another worker that hosts copy 1 alone does what the lane of two copies did there."""
    elsewhere, copy = RolloutWorker(mixed), 1
    share = LaneAssignment(task_index, 1, copy, COPIES)
    elsewhere.open(share, WALK, seed=5)
    alone = elsewhere.collect(share, STEPS, WALK, acting=Acting(explore=True))
    elsewhere.close()
    for name in ("continuous", "discrete", "reward", "start_id", "episode_id"):
        np.testing.assert_array_equal(
            getattr(alone, name)[:, 0], getattr(fragments[0], name)[:, copy], err_msg=name
        )
    for bucket, rows in alone.observations.items():
        np.testing.assert_array_equal(rows[:, 0], fragments[0].observations[bucket][:, copy])


def test_a_policy_s_state_lasts_for_one_episode(fragments: tuple[Fragment, Fragment]) -> None:
    decisions = -np.concatenate([fragment.extras["log_probability"] for fragment in fragments])
    expected = np.arange(2 * STEPS) % HORIZON
    np.testing.assert_array_equal(decisions, np.stack([expected] * COPIES, axis=1))


def test_an_interrupted_lane_goes_on(
    gathered: Collected, worker: RolloutWorker, lane: LaneAssignment
) -> None:
    """Rebuilt from starts, actions and the policy's state, the lane repeats what it did next."""
    for state in gathered.between:
        worker.load_lane_state(state)
    assert_equal(worker.collect(lane, STEPS, WALK, acting=Acting(explore=True)), gathered.fragments[1])
