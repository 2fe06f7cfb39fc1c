"""The recorder's blocks and a policy's extras."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.errors import SpaceError
from mtrl.rollout import Action, Extra, PythonLane, StepRecorder, Version
from mtrl.rollout.lanes import recorder
from mtrl.tasks import TrainingStarts

from ..synthetic import counter_task
from .helpers import lane_of

PLAN = Extra("plan", (2,))
CHOICE = Extra("choice", dtype="int64")


def begun(horizon: int = 1000, copies: int = 2) -> PythonLane:
    lane = lane_of(TrainingStarts(copies=copies), copies, counter_task(horizon=horizon))
    lane.begin()
    return lane


def act(lane: PythonLane, t: int, **extras: np.ndarray) -> Action:
    return Action(
        np.full((lane.copies, 4), t / 1000, dtype=np.float32),
        np.zeros(lane.copies, dtype=np.int64),
        {},
        dict(extras),
    )


def record(kept: StepRecorder, steps: int, copies: np.ndarray | None = None) -> None:
    for _ in range(steps):
        action = act(kept.lane, kept.decisions)  # type: ignore[arg-type]
        kept.before_step(action, copies)
        kept.lane.step(action.continuous, action.discrete)
        kept.after_step()


def test_blocks_grow_and_cut_as_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BLOCK_STEPS", 3)
    kept = StepRecorder(begun(), (PLAN,))
    # a row of one copy: 5 numbers, start, episode, reward, three flags, 4 numbers, an index, 2 numbers
    monkeypatch.setattr(recorder, "BLOCK_BYTES", 10 * 2 * (20 + 8 + 8 + 4 + 3 + 16 + 8 + 8))
    record(kept, 40)
    assert [len(block.arrays["reward"]) for block in kept._blocks] == [3, 6, 10, 10, 10, 10]
    np.testing.assert_array_equal(kept.column("reward", 1, 2), np.arange(3, 41))
    states = np.full((20, 3), np.nan, dtype=np.float32)
    kept.copy_episode("observations.state", 1, 2, states)
    np.testing.assert_array_equal(states[:, 0], np.arange(2, 22))
    np.testing.assert_array_equal(states[:, 1], np.full(20, 3))


def test_a_decision_larger_than_a_block_still_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BLOCK_BYTES", 1)
    kept = StepRecorder(begun())
    record(kept, 4)
    np.testing.assert_array_equal(kept.column("reward", 0, 0), [1, 2, 3, 4])


def test_copies_that_do_not_count_are_not_written() -> None:
    kept = StepRecorder(begun())
    record(kept, 2)
    record(kept, 2, copies=np.array([1]))
    np.testing.assert_array_equal(kept.column("reward", 1, 0), [1, 2, 3, 4])
    np.testing.assert_array_equal(kept.column("reward", 0, 0), [1, 2, 0, 0])


def test_outcomes_alone_need_no_observation() -> None:
    kept = StepRecorder(begun(), (PLAN,), outcomes_only=True)
    record(kept, 5)
    assert set(kept._blocks[0].arrays) == {"reward", "success"}


def test_extras_are_recorded_and_what_is_left_out_is_filled() -> None:
    lane = begun()
    kept = StepRecorder(lane, (PLAN, CHOICE), steps=2)
    plan, choice = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32), np.array([5, 6])
    for extras in ({"plan": plan}, {"choice": choice}):
        action = act(lane, 0, **extras)
        kept.before_step(action)
        lane.step(action.continuous, action.discrete)
        kept.after_step()
    fragment = kept.fragment(Version(), first_copy=3, first_step=8)
    np.testing.assert_array_equal(fragment.extras["plan"], [plan, np.full((2, 2), np.nan)])
    np.testing.assert_array_equal(fragment.extras["choice"], [[0, 0], [5, 6]])
    assert fragment.extras["choice"].dtype == np.int64
    assert (fragment.first_copy, fragment.first_step, fragment.epoch) == (3, 8, 0)


def test_extras_that_do_not_fit_are_refused() -> None:
    lane = begun()
    with pytest.raises(SpaceError, match="extra 'price', which it does not declare"):
        StepRecorder(lane, (PLAN,)).before_step(act(lane, 0, price=np.zeros(2)))
    with pytest.raises(SpaceError, match=r"'plan' is declared as \(2, 2\) for 2 copies; got \(2, 3\)"):
        StepRecorder(lane, (PLAN,)).before_step(act(lane, 0, plan=np.zeros((2, 3))))
