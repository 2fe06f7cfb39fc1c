"""Task samplers: shares worked out by hand, what holds for all of them, and what they remember."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.tasks import SamplingConfig, Score, Task, TaskSampler, sampler_for

from ..synthetic import counter_task

RANGED = Score("return", low=-10.0, high=10.0)


def tasks_of(*scores: Score) -> list[Task]:
    task = counter_task("counter/short")
    return [dataclasses.replace(task, name=f"counter/{k}", score=s) for k, s in enumerate(scores)]


def sampler_of(kind: str, *scores: Score, **settings: float) -> TaskSampler:
    return TaskSampler(SamplingConfig(kind, **settings), tasks_of(*scores or [Score("success")] * 3))  # type: ignore[arg-type]


def play(sampler: TaskSampler, task: int, *successes: int) -> None:
    for success in successes:
        sampler.observe(task, 0.0, bool(success))


@pytest.mark.parametrize("kind", ["uniform", "learning_progress", "worst_task"])
def test_shares_are_equal_before_anything_is_known(kind: str) -> None:
    np.testing.assert_array_equal(sampler_of(kind).shares, np.full(3, 1 / 3))


def test_learning_progress_is_the_distance_of_the_two_averages() -> None:
    sampler = sampler_of("learning_progress", floor=0.25, short_episodes=2, long_episodes=4)
    play(sampler, 0, 0, 1)  # short 1/2, long 1/4: progress 1/4
    play(sampler, 1, 1, 0, 0)  # short 1 -> 1/2 -> 1/4, long 1 -> 3/4 -> 9/16: progress 5/16, downwards
    play(sampler, 2, 1, 1, 1)  # solved from the beginning: no progress
    # 0.25 / 3 each, and 0.75 by 4/16 : 5/16 : 0
    np.testing.assert_allclose(sampler.shares, [1 / 12 + 0.75 * 4 / 9, 1 / 12 + 0.75 * 5 / 9, 1 / 12])


def test_without_any_progress_there_is_nothing_to_prefer() -> None:
    sampler = sampler_of("learning_progress")
    for task, success in enumerate((0, 1, 0)):
        play(sampler, task, *[success] * 5)
    np.testing.assert_allclose(sampler.shares, np.full(3, 1 / 3))


def test_the_worst_task_gets_most() -> None:
    sampler = sampler_of("worst_task", RANGED, RANGED, floor=0.2, temperature=0.5)
    sampler.observe(0, -10.0, False)  # score 0
    sampler.observe(1, 0.0, True)  # score 1/2
    weight = math.exp(1.0)  # exp(-0 / 0.5) : exp(-0.5 / 0.5)
    np.testing.assert_allclose(sampler.shares, [0.1 + 0.8 * weight / (weight + 1), 0.1 + 0.8 / (weight + 1)])


@pytest.mark.parametrize("kind", ["learning_progress", "worst_task"])
def test_tasks_without_a_score_keep_the_equal_share(kind: str) -> None:
    # task 2 has no episode yet, task 3 pays rewards of an unknown scale
    sampler = sampler_of(kind, *[Score("success")] * 3, Score("return"))
    play(sampler, 0, 0, 0)
    play(sampler, 1, 0, 1)
    sampler.observe(3, 1e6, False)
    shares = sampler.shares
    assert shares[2] == shares[3] == 0.25
    assert shares[0] != shares[1]
    assert shares.sum() == pytest.approx(1)


def test_solved_tasks_keep_a_part_and_come_back() -> None:
    sampler = sampler_of("uniform", *[Score("success")] * 4, solved_share=0.25, solved_episodes=3)
    play(sampler, 0, 0, 1, 1)
    play(sampler, 1, 1, 1)
    play(sampler, 2, 0, 1, 1, 1)
    assert sampler.solved.tolist() == [False, False, True, False]
    # task 2 gives up 3/4 of 1/4, which the two unsolved tasks with a score divide
    np.testing.assert_allclose(sampler.shares, [0.25 + 3 / 32, 0.25 + 3 / 32, 1 / 16, 0.25])
    play(sampler, 2, 0)
    np.testing.assert_allclose(sampler.shares, np.full(4, 0.25))


def test_what_solved_tasks_give_up_goes_to_the_unknown_when_nobody_else_needs_it() -> None:
    sampler = sampler_of("uniform", solved_share=0.5, solved_episodes=1)
    play(sampler, 0, 1)
    play(sampler, 1, 1)
    np.testing.assert_allclose(sampler.shares, [1 / 6, 1 / 6, 4 / 6])
    play(sampler, 2, 1)
    np.testing.assert_allclose(sampler.shares, np.full(3, 1 / 3))


EPISODES = st.lists(
    st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6), st.booleans()), min_size=0, max_size=60
)


@settings(max_examples=60)
@given(
    episodes=EPISODES,
    kind=st.sampled_from(["uniform", "learning_progress", "worst_task"]),
    floor=st.floats(0.01, 1.0),
    temperature=st.floats(1e-3, 10.0),
    solved_share=st.floats(0.01, 1.0),
    cut=st.integers(0, 60),
)
def test_shares_are_a_distribution_and_survive_json(
    episodes: list[tuple[int, float, bool]],
    kind: str,
    floor: float,
    temperature: float,
    solved_share: float,
    cut: int,
) -> None:
    config = SamplingConfig(
        kind, floor=floor, temperature=temperature, solved_share=solved_share, solved_episodes=2
    )
    tasks = tasks_of(Score("success"), RANGED, Score("return", 0.0, 200.0))
    whole, parts = TaskSampler(config, tasks), TaskSampler(config, tasks)
    for place, episode in enumerate(episodes):
        if place == cut:
            state = json.loads(json.dumps(parts.state_dict()))
            parts = TaskSampler(config, tasks)
            parts.load_state_dict(state)
        whole.observe(*episode)
        parts.observe(*episode)
        shares = whole.shares
        assert shares.sum() == pytest.approx(1.0)
        # nobody is forgotten: the floor's part, of which a solved task keeps a part
        assert shares.min() >= floor / 3 * solved_share - 1e-12
        assert shares.tolist() == parts.shares.tolist()


def test_a_uniform_sampler_is_none() -> None:
    assert sampler_for(SamplingConfig(), tasks_of(RANGED)) is None
    assert sampler_for(SamplingConfig("uniform", collection=False), tasks_of(RANGED)) is None
    assert sampler_for(SamplingConfig("uniform", solved_share=0.5), tasks_of(RANGED)) is not None
    assert sampler_for(SamplingConfig("worst_task"), tasks_of(RANGED)) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("floor", 0.0),
        ("floor", 1.1),
        ("temperature", 0.0),
        ("short_episodes", 0.5),
        ("long_episodes", 10.0),
        ("solved_share", 0.0),
        ("solved_score", 1.5),
        ("solved_episodes", 0),
    ],
)
def test_settings_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(OutOfRangeError, match=f"sampling.{key}={value}"):
        SamplingConfig(**{key: value})  # type: ignore[arg-type]


def test_a_sampler_that_is_misspelt_or_would_change_nothing_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'worst_task'"):
        SamplingConfig("worst_tasks")
    with pytest.raises(ConfigError, match=r"sampling.collection=true"):
        SamplingConfig("worst_task", collection=False)
