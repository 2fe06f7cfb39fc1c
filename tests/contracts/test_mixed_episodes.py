"""Starts, whole episodes and groups of the three tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtrl import registry
from mtrl.rollout import (
    Acting,
    EpisodeGroup,
    EpisodeJob,
    Episodes,
    GroupRequest,
    LaneAssignment,
    PolicySnapshot,
    RolloutWorker,
)
from mtrl.tasks import Split, TaskSet, start_id

from ..walk import WALK
from .conftest import COPIES, HORIZON

TEST_STARTS = tuple(start_id(Split.TEST, index) for index in range(3))


def play(worker: RolloutWorker, task_index: int, starts: Sequence[int], **settings: object) -> Episodes:
    """Recorded episodes of the wandering policy."""
    job = EpisodeJob(
        task_index,
        tuple(starts),
        seed=3,
        acting=Acting(explore=True),
        copies=COPIES,
        record=True,
        **settings,  # type: ignore[arg-type]
    )
    episodes = worker.run(job, WALK).episodes
    assert episodes is not None
    return episodes


def first_rows(episodes: Episodes) -> np.ndarray:
    """Row of each episode's first observation."""
    return episodes.offsets[:-1] + np.arange(len(episodes))


def test_a_start_is_one_exact_state(worker: RolloutWorker, task_index: int) -> None:
    # Three starts on two copies: start 0 on copy 0 and again on copy 1, after other episodes.
    starts = (TEST_STARTS[0], TEST_STARTS[1], TEST_STARTS[2], TEST_STARTS[0])
    episodes = play(worker, task_index, starts)
    for rows in episodes.observations.values():
        first = rows[first_rows(episodes)]
        np.testing.assert_array_equal(first[0], first[3])
        assert (first[0] != first[1]).any() or (first[0] != first[2]).any()
    # the policy's generator follows the start too, so the whole episodes agree
    again, begin = episodes.select([3]), episodes.select([0])
    for bucket, rows in begin.observations.items():
        np.testing.assert_array_equal(again.observations[bucket], rows)
    np.testing.assert_array_equal(again.reward, begin.reward)


def test_episodes_have_the_task_s_own_sizes(worker: RolloutWorker, mixed: TaskSet, task_index: int) -> None:
    task, episodes = mixed[task_index], play(worker, task_index, TEST_STARTS)
    assert tuple(episodes.observations) == task.observation.buckets
    count = HORIZON * len(TEST_STARTS)
    if task.observation.state is not None:
        assert episodes.observations["state"].shape == (count + 3, task.observation.state)
        assert episodes.observations["state"].dtype == np.float32
    else:
        assert episodes.observations["pixels"].shape == (count + 3, 4, 84, 84)
        assert episodes.observations["pixels"].dtype == np.uint8
    assert episodes.continuous.shape == (count, task.action.continuous)
    assert episodes.discrete.max() < max(task.action.discrete, 1)
    assert episodes.start_id.tolist() == list(TEST_STARTS)
    assert [summary.length for summary in episodes.summaries] == [HORIZON] * 3
    np.testing.assert_array_equal(np.flatnonzero(episodes.truncated), episodes.offsets[1:] - 1)
    assert not episodes.terminated.any()


def test_a_group_is_several_episodes_of_one_start(worker: RolloutWorker, task_index: int) -> None:
    request = GroupRequest(task_index, start_id(Split.TRAIN, 4), 3, Acting(explore=True), seed=3)
    group = EpisodeGroup.of(worker.run(request.job(), WALK))
    assert len(group) == len(group.returns) == 3
    for rows in group.observations.values():
        first = rows[first_rows(group)]
        np.testing.assert_array_equal(first, first[[0, 0, 0]])
    played = group.continuous if group.continuous.shape[1] else group.discrete
    assert (played[:HORIZON] != played[HORIZON : 2 * HORIZON]).any(), "repeats act differently"
    # the walking policy records minus the decision's number
    np.testing.assert_array_equal(-group.extras["log_probability"], np.tile(np.arange(HORIZON), 3))


def test_success_ends_training_episodes_and_no_job() -> None:
    reach = replace(registry.task("metaworld/reach-v3"), horizon_decisions=80, end_on_success=True)
    worker, expert = RolloutWorker(TaskSet([reach])), PolicySnapshot("expert")
    try:
        job = EpisodeJob(0, TEST_STARTS[:1], seed=0, acting=Acting(), copies=1)
        (summary,) = worker.run(job, expert).summaries
        assert summary.success_any
        assert (summary.length, summary.truncated, summary.terminated) == (80, True, False)
        (short,) = worker.run(replace(job, success_tail=2), expert).summaries
        assert short.length == (summary.first_success or 0) + 2
        assert short.truncated
        share = LaneAssignment(0, 1, 0, 1)
        worker.open(share, expert, seed=0)
        fragment = worker.collect(share, 80, expert, acting=Acting())
        assert fragment.success.any()
        np.testing.assert_array_equal(fragment.terminated, fragment.success)
    finally:
        worker.close()
