"""Replayed extras, and replays in files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl.data import MappedStorage, Replay, ReplayConfig
from mtrl.errors import ConfigError
from mtrl.rollout import Extra, Fragment
from mtrl.tasks import TaskSet

from .counting import fragments_of, require_true_transitions

VALUE = Extra("value", (2,), replayed=True)
CHOICE = Extra("choice", dtype="int64", replayed=True)


def with_extras(fragment: Fragment) -> Fragment:
    """Values (10 * reward, -reward) and no choice."""
    value = np.stack([10 * fragment.reward, -fragment.reward], axis=-1)
    return dataclasses.replace(fragment, extras={"value": value, "unknown": fragment.reward})


def test_replayed_extras_come_with_their_transition(tasks: TaskSet) -> None:
    extras = (VALUE, CHOICE, Extra("log_probability"))
    replay = Replay(tasks, ReplayConfig(capacity=1000), extras)
    for fragment in fragments_of(tasks, 9):
        replay.add(with_extras(fragment))
    batch = replay.sample(20, np.random.default_rng(0))
    assert set(batch.fields) == {
        "continuous",
        "discrete",
        "reward",
        "terminated",
        "truncated",
        "value",
        "choice",
    }
    np.testing.assert_array_equal(batch.fields["value"][..., 0], 10 * batch.fields["reward"])
    assert not batch.fields["choice"].any()
    for fragment in fragments_of(tasks, 3):
        replay.add(fragment)
    drawn = replay.sample(30, np.random.default_rng(0)).fields["value"]
    assert drawn.isnan().any() and not drawn.isnan().all(), "what lacks an extra is filled"
    restored = Replay(tasks, ReplayConfig(capacity=1000), extras)
    restored.load_state_dict(replay.state_dict())
    again = restored.sample(30, np.random.default_rng(0)).fields["value"]
    np.testing.assert_array_equal(again, drawn)
    with pytest.raises(ConfigError, match=r"differ in extras.choice, extras.value"):
        Replay(tasks, ReplayConfig(capacity=1000)).load_state_dict(replay.state_dict())
    with pytest.raises(ConfigError, match="another name than 'reward'"):
        Replay(tasks, ReplayConfig(), (Extra("reward", replayed=True),))


@pytest.mark.parametrize("capacity", [23, 1000])
def test_a_mapped_replay_is_reopened_with_what_it_held(tasks: TaskSet, capacity: int, tmp_path: Path) -> None:
    config = ReplayConfig(capacity=capacity)
    memory = Replay(tasks, config)
    mapped = Replay(tasks, config, storage=MappedStorage(tmp_path))
    fragments = fragments_of(tasks, 40)
    for fragment in fragments[:30]:
        memory.add(fragment)
        mapped.add(fragment)
    mapped.commit(30, sum(fragment.steps for fragment in fragments[:30]))
    reopened = Replay(tasks, config, storage=MappedStorage(tmp_path))
    np.testing.assert_array_equal(reopened.sizes, memory.sizes)
    for replay in (mapped, reopened):
        ours, theirs = (r.sample(9, np.random.default_rng(3)) for r in (replay, memory))
        for name in ours.fields:
            np.testing.assert_array_equal(ours.fields[name], theirs.fields[name])
        for name in ours.buckets:
            np.testing.assert_array_equal(ours.buckets[name].values, theirs.buckets[name].values)
    for fragment in fragments[30:]:
        reopened.add(fragment)
    require_true_transitions(reopened.sample(int(reopened.sizes.min()), np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="another folder"):
        Replay(tasks, ReplayConfig(capacity=capacity + 1), storage=MappedStorage(tmp_path))


def test_a_checkpoint_takes_back_what_its_storage_holds_beyond_it(tmp_path: Path, tasks: TaskSet) -> None:
    config = ReplayConfig(capacity=200)
    replay = Replay(tasks, config, storage=MappedStorage(tmp_path))
    fragments = fragments_of(tasks, 8)
    for fragment in fragments[:4]:
        replay.add(fragment)
    saved, sizes = replay.state_dict(), replay.sizes
    for fragment in fragments[4:]:
        replay.add(fragment)
    assert (replay.sizes > sizes).any()
    replay.commit(8, 0)
    reopened = Replay(tasks, config, storage=MappedStorage(tmp_path))
    reopened.load_state_dict(saved)
    np.testing.assert_array_equal(reopened.sizes, sizes)


@pytest.mark.parametrize("capacity", [23, 1000])
def test_what_was_not_committed_is_dropped_and_may_come_again(
    tasks: TaskSet, capacity: int, tmp_path: Path
) -> None:
    config, fragments = ReplayConfig(capacity=capacity), fragments_of(tasks, 20)
    once = Replay(tasks, config)
    for fragment in fragments:
        once.add(fragment)
    killed = Replay(tasks, config, storage=MappedStorage(tmp_path))
    for number, fragment in enumerate(fragments[:12], 1):
        killed.add(fragment)
        if number <= 10:
            killed.commit(number, 7 * number)
    # as if it were killed here: the twelfth fragment is partly written, the eleventh is not committed
    again = Replay(tasks, config, storage=MappedStorage(tmp_path))
    assert again.reopened
    assert again.record is not None
    assert (again.record.number, again.record.steps) == (10, 70)
    require_true_transitions(again.sample(int(again.sizes.min()), np.random.default_rng(0)))
    for fragment in fragments[10:]:
        again.add(fragment)
    if capacity == 1000:
        # every transition once: the fragments are all there, and none of them twice
        np.testing.assert_array_equal(again.sizes, once.sizes)
    require_true_transitions(again.sample(int(again.sizes.min()), np.random.default_rng(0)))
