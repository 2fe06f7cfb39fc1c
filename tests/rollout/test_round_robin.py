"""Turns in order and in proportion."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.errors import ConfigError
from mtrl.rollout import RoundRobin


def test_without_shares_turns_go_round_past_those_that_are_out() -> None:
    turns = RoundRobin(3)
    assert [turns.take([]) for _ in range(4)] == [0, 1, 2, 0]
    assert [turns.take([1]) for _ in range(3)] == [2, 0, 2]


def test_turns_by_hand() -> None:
    turns = RoundRobin(3)
    turns.set_shares(np.array([0.5, 0.25, 0.25]))
    # credits .5 .25 .25 | 0 .5 .5 | .5 -.25 .75 | 1 0 0: and so on, four turns a round
    assert [turns.take([]) for _ in range(8)] == [0, 1, 2, 0, 0, 1, 2, 0]


def test_equal_shares_keep_the_order() -> None:
    turns = RoundRobin(7)
    turns.set_shares(np.full(7, 1 / 7))
    assert [turns.take([]) for _ in range(700)] == list(range(7)) * 100


@settings(max_examples=40)
@given(weights=st.lists(st.floats(0.02, 1.0), min_size=2, max_size=8), cut=st.integers(0, 150))
def test_turns_follow_the_shares_and_survive_json(weights: list[float], cut: int) -> None:
    shares = np.array(weights) / sum(weights)
    turns, counts = RoundRobin(len(shares)), np.zeros(len(shares))
    turns.set_shares(shares)
    for n in range(1, 200):
        if n == cut:
            state = json.loads(json.dumps(turns.state_dict()))
            turns = RoundRobin(len(shares))
            turns.load_state_dict(state)
        counts[turns.take([])] += 1
        assert np.abs(counts - n * shares).max() < len(shares)


def test_the_shares_of_those_that_are_out_go_to_the_others() -> None:
    turns = RoundRobin(3)
    turns.set_shares(np.array([0.6, 0.3, 0.1]))
    taken = np.bincount([turns.take([0]) for _ in range(40)], minlength=3)
    assert taken.tolist() == [0, 30, 10]
    turns.set_shares(np.array([1.0, 0.0, 0.0]))
    assert {turns.take([0]) for _ in range(4)} == {1, 2}


@pytest.mark.parametrize("shares", [[0.5, 0.5], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5]])
def test_what_are_no_shares_is_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match="3 numbers"):
        RoundRobin(3).set_shares(np.array(shares))
