"""Jobs: whole episodes in the order of their starts, however they were shared out among copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.rollout import (
    LOG_PROBABILITY,
    Acting,
    Action,
    EpisodeGroup,
    EpisodeJob,
    Episodes,
    Extra,
    JobResult,
    PolicyState,
    Version,
    run_job,
    schedule_of,
)
from mtrl.spaces import Observation

from ..synthetic import counter_task
from .helpers import lane_of


class Recorder:
    """Plays a random number from each copy's generator and counts its decisions in the state."""

    version = 3
    extras = (LOG_PROBABILITY, Extra("label", (4,)))

    def __init__(self) -> None:
        self.ended: list[list[bool]] = []
        self.counts: list[list[int]] = []

    def initial_state(self, count: int) -> PolicyState:
        return {"count": np.zeros(count, dtype=np.int64)}

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        count = np.where(ended, 0, state["count"])
        self.ended.append(ended.tolist())
        self.counts.append(count.tolist())
        draws = np.array([generator.uniform(-0.5, 0.5) for generator in generators], dtype=np.float32)
        played = np.repeat(draws[:, None], 4, axis=1)
        label = np.zeros((len(draws), 4), dtype=np.float32) if acting.explore else played
        return Action(
            continuous=played,
            discrete=np.zeros(len(draws), dtype=np.int64),
            state={"count": count + 1},
            extras={"log_probability": draws * 2, "label": label},
        )


def play(job: EpisodeJob, policy: Recorder | None = None, **options: int) -> JobResult:
    lane = lane_of(schedule_of(job), min(job.copies, len(job.starts)), counter_task(**options))
    lane.success_tail = job.success_tail
    return run_job(job, lane, policy or Recorder())


def job_of(starts: Sequence[int], **settings: object) -> EpisodeJob:
    defaults = {"task_index": 0, "seed": 1, "acting": Acting(), "copies": 2, "record": True}
    return EpisodeJob(starts=tuple(starts), **{**defaults, **settings})  # type: ignore[arg-type]


def episode(episodes: Episodes, e: int) -> dict[str, list[float]]:
    """One episode's observations and actions, by the arithmetic of the docstring."""
    begin, end = episodes.offsets[e], episodes.offsets[e + 1]
    return {
        "state": episodes.observations["state"][begin + e : end + e + 1].tolist(),
        "continuous": episodes.continuous[begin:end].tolist(),
    }


def test_summaries_by_hand() -> None:
    result = play(job_of([2, 5, 8]), success_at=2, horizon=3)
    assert [summary.start for summary in result.summaries] == [2, 5, 8]
    for summary in result.summaries:
        # rewards 1 + 2 + 3; the signal is on after decision 2 alone
        assert (summary.episode_return, summary.length) == (6.0, 3)
        assert (summary.success_any, summary.success_end, summary.first_success) == (True, False, 2)
        assert (summary.terminated, summary.truncated) == (False, True)
        assert (summary.task_index, summary.repeat) == (0, 0)


def test_an_episode_that_terminates_without_success() -> None:
    (summary,) = play(job_of([2]), terminate_at=1).summaries
    assert (summary.terminated, summary.truncated, summary.length) == (True, False, 1)
    assert (summary.success_any, summary.success_end, summary.first_success) == (False, False, None)


def test_a_success_tail_cuts_the_episode() -> None:
    (summary,) = play(job_of([2], success_tail=1), success_at=2, horizon=9).summaries
    assert (summary.length, summary.first_success, summary.truncated) == (3, 2, True)


def test_recorded_episodes_have_the_task_s_own_sizes() -> None:
    result = play(job_of([2, 5, 8, 11, 14]), horizon=3)
    episodes = result.episodes
    assert episodes is not None
    assert episodes.offsets.tolist() == [0, 3, 6, 9, 12, 15]
    assert episodes.observations["state"].shape == (5 * 4, 3)
    assert episodes.continuous.shape == episodes.label.shape == (15, 2)
    assert episodes.start_id.tolist() == [2, 5, 8, 11, 14]
    for e, start in enumerate(episodes.start_id):
        state = np.array(episode(episodes, e)["state"])
        assert state[:, 0].tolist() == [0, 1, 2, 3]
        assert state[:, 1].tolist() == [start] * 4
        executed = np.array(episode(episodes, e)["continuous"]).sum(axis=1)
        np.testing.assert_allclose(state[1:, 2], np.cumsum(executed), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(episodes.reward, [1, 2, 3] * 5)
    np.testing.assert_array_equal(episodes.truncated, [False, False, True] * 5)
    np.testing.assert_array_equal(episodes.label, episodes.continuous)
    np.testing.assert_allclose(episodes.extras["log_probability"], 2 * episodes.continuous[:, 0])
    assert episodes.policy_version == Version(0, 3)
    types = {
        name: getattr(episodes, name).dtype for name in ("continuous", "discrete", "terminated", "reward")
    }
    assert types == {"continuous": "f4", "discrete": "i8", "terminated": "?", "reward": "f4"}


def test_clean_labels_stand_beside_perturbed_actions() -> None:
    episodes = play(job_of([2], acting=Acting(explore=True))).episodes
    assert episodes is not None
    assert not episodes.label.any()
    assert episodes.continuous.any()


@pytest.mark.parametrize("copies", [1, 2, 3, 8])
def test_an_episode_does_not_depend_on_the_copies_beside_it(copies: int) -> None:
    starts = [2, 5, 8, 11, 14, 17, 20]
    alone = play(job_of(starts, copies=1), horizon=3)
    together = play(job_of(starts, copies=copies), horizon=3)
    assert together.summaries == alone.summaries
    assert alone.episodes is not None
    assert together.episodes is not None
    for e in range(len(starts)):
        assert episode(together.episodes, e) == episode(alone.episodes, e)


def test_repeats_tell_episodes_of_one_start_apart() -> None:
    result = play(job_of([2, 2, 2], repeats=(0, 1, 0)))
    assert result.episodes is not None
    assert [summary.repeat for summary in result.summaries] == [0, 1, 0]
    first, second, again = (episode(result.episodes, e) for e in range(3))
    assert first == again
    assert first["continuous"] != second["continuous"]
    assert first["state"][0] == second["state"][0]


def test_seeds_tell_jobs_apart() -> None:
    one, same, other = (play(job_of([2], seed=seed)).episodes for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    np.testing.assert_array_equal(one.continuous, same.continuous)
    assert (one.continuous != other.continuous).any()


def test_the_policy_is_told_where_episodes_begin_and_keeps_its_state_within_them() -> None:
    policy = Recorder()
    # two copies, three starts, two decisions each: copy 0 plays two episodes, copy 1 rests after one
    play(job_of([2, 5, 8]), policy, horizon=2)
    assert policy.ended == [[True, True], [False, False], [True, True], [False, False]]
    assert [counts[0] for counts in policy.counts] == [0, 1, 0, 1]


def test_progress_counts_the_decisions_made() -> None:
    job, made = job_of([2, 5, 8]), []
    lane = lane_of(schedule_of(job), 2, counter_task(horizon=2))
    run_job(job, lane, Recorder(), on_decision=made.append)
    assert made == [2, 2, 1, 1]


def test_summaries_alone_keep_no_arrays() -> None:
    assert play(job_of([2], record=False)).episodes is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"starts": []}, ConfigError, "at least one start"),
        ({"copies": 0}, OutOfRangeError, "job.copies=0"),
        ({"success_tail": -1}, OutOfRangeError, "job.success_tail=-1"),
        ({"repeats": (0,)}, ConfigError, "got 1 for 2 starts"),
    ],
)
def test_impossible_jobs_are_refused(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        job_of(**{"starts": [2, 5], **settings})  # type: ignore[arg-type]


def test_selecting_and_joining_episodes() -> None:
    episodes = play(job_of([2, 5, 8, 11]), horizon=3).episodes
    assert episodes is not None
    chosen = episodes.select([3, 1])
    assert chosen.start_id.tolist() == [11, 5]
    assert chosen.offsets.tolist() == [0, 3, 6]
    assert episode(chosen, 0) == episode(episodes, 3)
    assert episode(chosen, 1) == episode(episodes, 1)
    joined = Episodes.concatenate([episodes.select([0]), episodes.select([]), episodes.select([1, 2, 3])])
    assert joined.start_id.tolist() == episodes.start_id.tolist()
    for e in range(4):
        assert episode(joined, e) == episode(episodes, e)
    assert len(episodes.select([])) == 0


def test_joining_ragged_episodes() -> None:
    short, long = (play(job_of([start]), horizon=horizon).episodes for start, horizon in ((2, 1), (5, 3)))
    assert short is not None
    assert long is not None
    joined = Episodes.concatenate([short, long])
    assert joined.offsets.tolist() == [0, 1, 4]
    assert [row[0] for row in episode(joined, 0)["state"]] == [0, 1]
    assert [row[0] for row in episode(joined, 1)["state"]] == [0, 1, 2, 3]


def test_a_group_is_one_start() -> None:
    result = play(job_of([2, 2, 2], repeats=(0, 1, 2)), terminate_at=3)
    group = EpisodeGroup.of(result)
    assert len(group) == 3
    assert group.returns.tolist() == [6.0, 6.0, 6.0]
    np.testing.assert_array_equal(
        group.observations["state"][group.offsets[:-1] + np.arange(3)], [[0, 2, 0]] * 3
    )
    mixed = play(job_of([2, 5]))
    with pytest.raises(ValueError, match=r"one start; got \[2, 5\]"):
        EpisodeGroup.of(mixed)
