"""Trajectories: offsets, windows worked out by hand, and joins that can be taken apart again."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from mtrl.data import Trajectories
from mtrl.errors import SpaceError
from mtrl.rollout import Episodes, EpisodeSummary, Version

from .samples import BOTH, PIXELS, STATE, assert_equal, trajectories_of


def test_windows_by_hand() -> None:
    # Two episodes, of 3 and 2 decisions. Observation rows 0 1 2 3 | 4 5 6, where 3 and 6 are the last ones
    # that no decision saw; action rows 0 1 2 | 3 4.
    windows = trajectories_of(STATE, [3, 2]).windows(history=3, chunk=2)
    assert windows.observation_rows.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [4, 4, 4], [4, 4, 5]]
    assert windows.action_rows.tolist() == [[0, 1], [1, 2], [2, 2], [3, 4], [4, 4]]
    assert windows.real.tolist() == [[True, True], [True, True], [True, False], [True, True], [True, False]]


def test_windows_longer_than_an_episode() -> None:
    windows = trajectories_of(STATE, [1, 2]).windows(history=1, chunk=4)
    assert windows.observation_rows.tolist() == [[0], [2], [3]]
    assert windows.action_rows.tolist() == [[0, 0, 0, 0], [1, 2, 2, 2], [2, 2, 2, 2]]
    assert windows.real.sum(axis=1).tolist() == [1, 2, 1]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    history=st.integers(1, 5),
    chunk=st.integers(1, 9),
)
def test_windows_never_leave_their_episode(lengths: list[int], history: int, chunk: int) -> None:
    data = trajectories_of(STATE, lengths)
    windows = data.windows(history, chunk)
    n = 0
    for e, length in enumerate(lengths):
        for t in range(length):
            own = data.offsets[e] + e
            assert (
                windows.observation_rows[n].tolist()
                == [own + max(t - back, 0) for back in range(history)][::-1]
            )
            ahead = [t + j for j in range(chunk)]
            assert windows.action_rows[n].tolist() == [data.offsets[e] + min(j, length - 1) for j in ahead]
            assert windows.real[n].tolist() == [j < length for j in ahead]
            n += 1
    assert n == len(windows.real)


def test_select_by_hand() -> None:
    data = trajectories_of(STATE, [3, 2, 1])
    chosen = data.select([2, 0])
    assert chosen.offsets.tolist() == [0, 1, 4]
    assert chosen.actions.tolist() == data.actions[[5, 0, 1, 2]].tolist()
    # Observation rows: episode 0 holds 0-3, episode 1 holds 4-6, episode 2 holds 7-8.
    assert chosen.observations["state"].tolist() == data.observations["state"][[7, 8, 0, 1, 2, 3]].tolist()
    assert chosen.start_id.tolist() == data.start_id[[2, 0]].tolist()
    assert data.select([]).episode_count == 0


@pytest.mark.parametrize("task", [STATE, PIXELS, BOTH])
def test_selecting_every_episode_changes_nothing(task: object) -> None:
    data = trajectories_of(task, [3, 1, 4, 2])
    assert_equal(data.select(range(4)), data)


def test_from_episodes_keeps_labels_apart_from_actions() -> None:
    data = trajectories_of(STATE, [2, 3])
    summaries = tuple(
        EpisodeSummary(0, int(start), 0, 0.0, 2, False, False, None, False, True) for start in data.start_id
    )
    episodes = Episodes(
        task_index=0,
        policy_version=Version(),
        summaries=summaries,
        offsets=data.offsets,
        observations=dict(data.observations),
        continuous=data.actions,
        discrete=np.full(5, 4),
        reward=data.rewards,
        terminated=data.terminated,
        truncated=data.truncated,
        success=data.success,
        extras={"label": np.pad(data.labels, ((0, 0), (0, 2)))},
    )
    assert_equal(Trajectories.from_episodes(episodes), data)
    nothing = np.zeros((5, 0), dtype=np.float32)
    discrete = Trajectories.from_episodes(dataclasses.replace(episodes, continuous=nothing))
    assert discrete.is_discrete
    assert discrete.actions.tolist() == discrete.labels.tolist() == [4] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([0, 3, 3, 5])}, "ascend by at least one"),
        ({"offsets": np.array([1, 5])}, "begin at 0"),
        ({"rewards": np.zeros(4, dtype=np.float32)}, "rewards has 4 rows; expected 5"),
        ({"start_id": np.zeros(3, dtype=np.int64)}, "start_id has shape"),
        ({"labels": np.zeros((5, 3), dtype=np.float32)}, "labels are shaped as actions"),
        ({"actions": np.zeros((5, 2)), "labels": np.zeros((5, 2))}, "actions are float32"),
        ({"observations": {"state": np.zeros((5, 5), dtype=np.float32)}}, "has 5 rows; expected 7"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        dataclasses.replace(trajectories_of(STATE, [3, 2]), **change)


def test_the_observations_that_follow_by_hand() -> None:
    rows, there = trajectories_of(STATE, [3, 2]).future(chunk=2, stride=2)
    # decision 0 sees row 0: rows 2 and 4, of which the episode has no more than row 3
    np.testing.assert_array_equal(rows, [[2, 3], [3, 3], [3, 3], [6, 6], [6, 6]])
    np.testing.assert_array_equal(
        there, [[True, False], [True, False], [False, False], [True, False], [False, False]]
    )


def test_returns_of_episodes_that_were_cut_go_on_to_the_horizon() -> None:
    data = trajectories_of(STATE, [2, 2, 3])
    rewards = np.array([1, 3, 1, 3, 1, 1, 1], dtype=np.float32)
    terminated = np.array([0, 0, 0, 1, 0, 0, 0], dtype=bool)
    found = dataclasses.replace(data, rewards=rewards, terminated=terminated).returns(0.5, 3)
    # 1 + 3/2 + 2/4 with the mean of the rewards so far; 1 + 3/2; 1 + 1/2 + 1/4
    np.testing.assert_allclose(found, [3.0, 2.5, 1.75])
