"""Fragments of a lane follow on each other by epoch, copy and step, whatever they show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mtrl.data import Replay, ReplayConfig
from mtrl.data.replay_ring import ReplayRing
from mtrl.rollout import Fragment
from mtrl.tasks import TaskSet

from .counting import fragments_of, require_true_transitions


def test_copies_that_see_the_same_are_not_taken_for_each_other(tasks: TaskSet) -> None:
    """Two copies of one constant observation, told apart by their rewards."""
    replay = Replay(tasks, ReplayConfig(capacity=1000))
    template = next(f for f in fragments_of(tasks, 1) if f.task_index == 0)
    for part in range(3):
        # copy 1 comes first, as a lane of its own
        for copy in (1, 0):
            fragment = constant(template, copy=copy, first_step=4 * part)
            replay.add(fragment)
    batch = replay.sample_sequences(24, 12, np.random.default_rng(0), [0])
    rewards, weight = batch.fields["reward"][0], batch.weight[0]
    for sequence in range(24):
        length = int(weight[:, sequence].sum())
        seen = rewards[:length, sequence]
        # copy c pays 100 c + the lane's step: one copy alone, and every step follows the last
        assert seen.tolist() == [float(seen[0]) + t for t in range(length)]
        assert seen[0] % 100 + length == 12


def constant(template: Fragment, copy: int, first_step: int) -> Fragment:
    """Four decisions of one copy that sees zeros only; no episode ends."""
    nothing = np.zeros((4, 1), dtype=bool)
    return dataclasses.replace(
        template,
        observations={"state": np.zeros((5, 1, 5), np.float32)},
        continuous=np.zeros((4, 1, 4), np.float32),
        discrete=np.zeros((4, 1), np.int64),
        reward=(100.0 * copy + first_step + np.arange(4, dtype=np.float32))[:, None],
        terminated=nothing,
        truncated=nothing,
        final_index=np.zeros((0, 2), np.int64),
        final_observations={"state": np.zeros((0, 5), np.float32)},
        extras={},
        first_copy=copy,
        first_step=first_step,
    )


@pytest.mark.parametrize("change", [{"epoch": 1}, {"first_step": 8}, {"first_step": 0}, {"first_copy": 1}])
def test_what_does_not_go_on_is_not_joined(tasks: TaskSet, change: dict[str, int]) -> None:
    """A lane that was opened again, one that lost a fragment, one of a new session, and another copy."""
    ring = ReplayRing(tasks.layout, 0, 1000)
    template = fragments_of(tasks, 1)[0]
    ring.add(constant(template, copy=0, first_step=0))
    following = constant(template, copy=0, first_step=4)
    ring.add(dataclasses.replace(following, **change))  # type: ignore[arg-type]
    assert ring.written == 5 + 5
    longest = ring.follow(np.array([0]), 8).real
    assert longest is not None
    assert longest.sum() == 4


def test_copies_are_linked_however_lanes_are_interleaved(tasks: TaskSet) -> None:
    """Every copy as a lane of its own, delivered in another order each round."""
    whole = Replay(tasks, ReplayConfig(capacity=1000))
    single = Replay(tasks, ReplayConfig(capacity=1000))
    draws = np.random.default_rng(0)
    for fragment in fragments_of(tasks, 24, copies=3):
        whole.add(fragment)
        for copy in draws.permutation(3):
            single.add(one_copy(fragment, int(copy)))
    written = [[ring["written"] for ring in replay.state_dict()["rings"]] for replay in (whole, single)]
    assert written[0] == written[1]
    require_true_transitions(single.sample(96, draws))


def one_copy(fragment: Fragment, copy: int) -> Fragment:
    """A copy of a lane as a lane of its own."""
    mine = fragment.final_index[:, 1] == copy
    cut = {
        name: getattr(fragment, name)[:, [copy]]
        for name in ("continuous", "discrete", "reward", "terminated", "truncated", "success", "start_id")
    }
    return dataclasses.replace(
        fragment,
        **cut,
        episode_id=fragment.episode_id[:, [copy]],
        observations={b: rows[:, [copy]] for b, rows in fragment.observations.items()},
        final_index=np.stack([fragment.final_index[mine, 0], np.zeros(mine.sum(), np.int64)], axis=1),
        final_observations={b: rows[mine] for b, rows in fragment.final_observations.items()},
        extras={name: rows[:, [copy]] for name, rows in fragment.extras.items()},
        first_copy=fragment.first_copy + copy,
    )
