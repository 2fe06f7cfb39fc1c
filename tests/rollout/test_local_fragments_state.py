"""Local collection goes on exactly where its saved state was taken."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mtrl.errors import UnsupportedError
from mtrl.rollout import (
    CollectionConfig,
    Fragment,
    LocalFragments,
    PolicySnapshot,
    RuntimeConfig,
)
from mtrl.tasks import TaskSet
from mtrl.training import load_state, save_state

from ..synthetic import CounterSuite, counter_suite, counter_task

ARRAYS = ("continuous", "discrete", "reward", "terminated", "truncated", "start_id", "episode_id")


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


def source_of(seed: int = 4, stagger: bool = True, **options: int) -> LocalFragments:
    tasks = TaskSet(
        [counter_task("counter/short", horizon=5, **options), counter_task("counter/frames", horizon=7)]
    )
    settings = CollectionConfig(copies=3, steps=4, stagger=stagger)
    return LocalFragments(
        tasks, RuntimeConfig(attempts=2), settings, PolicySnapshot("random"), seed, on_fault=lambda *_: None
    )


def place_of(fragment: Fragment) -> tuple[int, int, int]:
    return fragment.first_copy, fragment.epoch, fragment.first_step


def require_equal(mine: list[Fragment], theirs: list[Fragment]) -> None:
    assert [f.task_index for f in mine] == [f.task_index for f in theirs]
    for first, second in zip(mine, theirs, strict=True):
        assert place_of(first) == place_of(second)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
        for bucket, rows in first.observations.items():
            np.testing.assert_array_equal(rows, second.observations[bucket])


@pytest.mark.parametrize("taken", [0, 1, 2, 5, 8])
def test_fragments_after_a_restored_state_are_those_of_the_original(
    suite: CounterSuite, tmp_path: Path, taken: int
) -> None:
    original = source_of()
    list(islice(original.stream(), taken))
    save_state(tmp_path / "state", original.state_dict())
    # another seed: what counts is in the state
    restored = source_of(seed=99)
    restored.load_state_dict(load_state(tmp_path / "state"))
    require_equal(list(islice(original.stream(), 9)), list(islice(restored.stream(), 9)))


def test_reopened_lanes_and_quarantine_survive(suite: CounterSuite) -> None:
    original = source_of(stagger=False)
    stream = original.stream()
    next(stream)
    suite.failures = 1
    # task 1 faults and is opened again at once
    assert [place_of(fragment) for fragment in islice(stream, 3)] == [(0, 1, 0), (0, 0, 4), (0, 1, 4)]
    restored = source_of(stagger=False)
    restored.load_state_dict(original.state_dict())
    require_equal(list(islice(original.stream(), 6)), list(islice(restored.stream(), 6)))

    broken = source_of(fail_at=2)
    assert {f.task_index for f in islice(broken.stream(), 3)} == {1}
    again = source_of(fail_at=2)
    held = again.quarantined
    again.load_state_dict(broken.state_dict())
    assert held is again.quarantined
    assert set(held) == {0}
    require_equal(list(islice(broken.stream(), 3)), list(islice(again.stream(), 3)))


def test_a_suite_without_starts_says_so() -> None:
    with counter_suite(supports_starts=False):
        source = source_of()
        next(source.stream())
        with pytest.raises(UnsupportedError, match="cannot reset to a given start"):
            source.state_dict()
