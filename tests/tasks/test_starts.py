"""Starts: disjoint, unlimited, shared by nobody."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrl.errors import ConfigError
from mtrl.tasks import FixedStarts, Split, TrainingStarts, split_of, start_id, start_seed

indices = st.integers(0, 10**12)


@given(st.sampled_from(Split), indices, st.sampled_from(Split), indices)
def test_starts_are_disjoint_and_unlimited(split: Split, index: int, other: Split, other_index: int) -> None:
    start = start_id(split, index)
    assert split_of(start) is split
    assert (start == start_id(other, other_index)) == ((split, index) == (other, other_index))


def test_first_starts() -> None:
    assert [start_id(Split.TRAIN, i) for i in range(3)] == [0, 3, 6]
    assert [start_id(Split.VALIDATION, i) for i in range(3)] == [1, 4, 7]
    assert [start_id(Split.TEST, i) for i in range(3)] == [2, 5, 8]
    for index in (-1, 2**61):
        with pytest.raises(ConfigError, match=f"at least 0 and below 2.*; got {index}"):
            start_id(Split.TEST, index)
    assert start_id(Split.TEST, 2**61 - 1) < 2**63


def test_entropy_differs_between_tasks_and_starts_and_never_changes() -> None:
    draws = {
        (name, start): np.random.default_rng(start_seed(name, start)).integers(2**63)
        for name in ("metaworld/reach-v3", "metaworld/push-v3")
        for start in (0, 1, 2**40)
    }
    assert len(set(draws.values())) == len(draws)
    # published results name starts, so what a start means is fixed
    assert start_seed("a/b", 5).generate_state(1).tolist() == [
        np.random.SeedSequence([5, 97, 47, 98]).generate_state(1)[0]
    ]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 5))
def test_no_two_copies_share_a_training_start(lanes: list[int], seed: int, episodes: int) -> None:
    total, first, seen = sum(lanes), 0, []
    for copies in lanes:
        schedule = TrainingStarts(copies=copies, first_copy=first, total_copies=total, seed=seed)
        seen += [schedule.next_start(copy) for copy in range(copies) for _ in range(episodes)]
        first += copies
    assert len(set(seen)) == len(seen) == total * episodes
    assert {split_of(start) for start in seen} == {Split.TRAIN}
    # together the lanes leave no gap, however the copies are shared out
    assert all(later - earlier == 3 for earlier, later in pairwise(sorted(seen)))


def test_training_starts_go_on_and_seeds_differ() -> None:
    schedule = TrainingStarts(copies=2)
    assert list(islice(iter(lambda: schedule.next_start(1), None), 3)) == [3, 9, 15]
    assert TrainingStarts(copies=2, seed=1).next_start(0) == 3 * 1_000_003


@pytest.mark.parametrize(("first", "total"), [(2, 0), (2, 3), (0, 1)])
def test_copies_that_do_not_fit_are_refused(first: int, total: int) -> None:
    with pytest.raises(ConfigError, match="would share starts"):
        TrainingStarts(copies=2, first_copy=first, total_copies=total)


def test_fixed_starts_end() -> None:
    schedule = FixedStarts([[5, 5, 8], [2]])
    assert [schedule.next_start(0) for _ in range(5)] == [5, 5, 8, None, None]
    assert [schedule.next_start(1) for _ in range(2)] == [2, None]


@pytest.mark.parametrize("kind", ["training", "fixed"])
def test_schedules_resume_where_they_stood(kind: str) -> None:
    def fresh() -> TrainingStarts | FixedStarts:
        return TrainingStarts(copies=2, seed=4) if kind == "training" else FixedStarts([[1, 4], [7, 10]])

    schedule, resumed = fresh(), fresh()
    schedule.next_start(1)
    saved = schedule.state_dict()
    following = [schedule.next_start(copy) for copy in (0, 1)]
    resumed.load_state_dict(saved)
    assert [resumed.next_start(copy) for copy in (0, 1)] == following
