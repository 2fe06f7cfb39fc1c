"""Starts of DeepMind Control tasks, some of them each day: 20 of each, fresh and on a used environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from mtrl.envs.dmc import SUITE
from mtrl.tasks import Environment, Task

from ..sweeps import sampled
from .episodes import assert_same_trajectory, first_observation, fixed_actions, play, same

STARTS = range(20)


@dataclass(frozen=True)
class Pair:
    """Two environments of a task, shared by the tests of it: building the dog takes seconds."""

    task: Task
    one: Environment
    other: Environment


@pytest.fixture(scope="module", params=sampled(SUITE.names(), share=4))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    task = SUITE.task(request.param)
    made = Pair(task, SUITE.environment(task), SUITE.environment(task))
    yield made
    made.one.close()
    made.other.close()


def test_a_start_does_not_depend_on_what_came_before(pair: Pair) -> None:
    """One environment begins at the first start and never steps; the other begins at the last one, and
    steps between the starts. Each is fresh where the other one is most used.
    """
    seen = [first_observation(pair.one, pair.task, start) for start in STARTS]
    for start in reversed(STARTS):
        assert same(first_observation(pair.other, pair.task, start), seen[start]), f"start {start}"
        play(pair.other, pair.task, 1000 + start, fixed_actions(pair.task, 2, seed=start))
    assert len({observation["state"].tobytes() for observation in seen}) == len(STARTS)


def test_an_episode_repeats_and_is_worth_what_the_score_says(pair: Pair) -> None:
    actions = fixed_actions(pair.task, 8)
    first = play(pair.one, pair.task, 4, actions)
    play(pair.one, pair.task, 5, fixed_actions(pair.task, 8, seed=1))
    assert_same_trajectory(play(pair.one, pair.task, 4, actions), first)
    assert_same_trajectory(play(pair.other, pair.task, 4, actions), first)
    assert np.isfinite(first.bucket("state")).all()
    for reward, terminated, success in first.outcomes:
        assert not terminated and not success
        # LQR's reward has no lower bound
        assert reward <= 1.0 and (reward >= 0.0 or "lqr" in pair.task.name)
