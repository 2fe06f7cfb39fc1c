"""Sequences from replay: within an episode, padded, every decision as likely a first one as any other."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.data import Replay, ReplayConfig, Trajectories
from mtrl.errors import OutOfRangeError
from mtrl.tasks import TaskSet

from .counting import filled, fragments_of


def test_sequences_follow_an_episode_to_its_true_end(tasks: TaskSet) -> None:
    """The counter's state is (t, start, sum of actions), and decision t pays t."""
    replay = filled(tasks, 30)
    batch = replay.sample_sequences(64, 6, np.random.default_rng(0))
    assert batch.buckets["state"].values.shape == (2, 7, 64, 5)
    assert batch.buckets["pixels"].values.shape == (1, 7, 64, 2, 3, 3)
    assert batch.weight.shape == batch.fields["reward"].shape == (3, 6, 64)
    assert batch.fields["continuous"].shape == (3, 6, 64, 4)
    for k, bucket, row, last in ((0, "state", 0, 5), (1, "state", 1, 3), (2, "pixels", 0, 4)):
        seen = batch.buckets[bucket].values[row].numpy()
        times = seen[..., 0] if bucket == "state" else seen[:, :, 0, 0, 0].astype(np.float32)
        starts = seen[..., 1] if bucket == "state" else seen[:, :, 1, 0, 0].astype(np.float32)
        for b in range(64):
            length = int(batch.weight[k, :, b].sum())
            np.testing.assert_array_equal(batch.weight[k, :, b], np.arange(6) < length)
            first = times[0, b]
            np.testing.assert_array_equal(times[: length + 1, b], first + np.arange(length + 1))
            assert len(set(starts[: length + 1, b].tolist())) == 1
            np.testing.assert_array_equal(batch.fields["reward"][k, :length, b], times[1 : length + 1, b])
            ends = (batch.fields["terminated"] | batch.fields["truncated"])[k, :, b]
            assert ends[: length - 1].sum() == 0
            assert not ends[length:].any()
            # the episode's end, or the end of what is stored
            assert times[length, b] == last or not ends[length - 1]
            assert not seen[length + 1 :, b].any()
            assert not batch.fields["reward"][k, length:, b].any()
            assert not batch.fields["continuous"][k, length:, b].any()


def test_a_sequence_of_one_decision_is_a_transition(tasks: TaskSet) -> None:
    replay = filled(tasks)
    one = replay.sample_sequences(16, 1, np.random.default_rng(4))
    plain = replay.sample(16, np.random.default_rng(4))
    for name, values in plain.fields.items():
        np.testing.assert_array_equal(one.fields[name][:, 0], values)
    for bucket, found in plain.buckets.items():
        np.testing.assert_array_equal(one.buckets[bucket].values, found.values)
    assert plain.weight.shape == (3, 16)
    with pytest.raises(OutOfRangeError, match="length=0"):
        replay.sample_sequences(16, 0, np.random.default_rng(4))


def test_short_episodes_and_last_steps_come_as_often_as_others(tasks: TaskSet) -> None:
    """Task 1 terminates after 3 decisions, and a capped sequence would leave out the last ones."""
    replay = filled(tasks, 12)
    generator, counts = np.random.default_rng(0), np.zeros(4)
    draws = 400
    for _ in range(draws):
        batch = replay.sample_sequences(32, 8, generator, [1])
        first = batch.buckets["state"].values[0, 0, :, 0].long()
        counts += np.bincount(first, minlength=4)
    # 32 decisions of 2 copies, 16 each: 5 whole episodes and a first decision
    expected = np.array([12, 10, 10, 0]) / 32 * counts.sum()
    deviation = np.sqrt(expected * (1 - expected / counts.sum()))
    assert (np.abs(counts - expected) <= 4 * deviation).all(), counts


@pytest.mark.parametrize("capacity", [16, 23, 40])
def test_a_ring_that_goes_round_keeps_sequences_whole(tasks: TaskSet, capacity: int) -> None:
    replay = Replay(tasks, ReplayConfig(capacity=capacity))
    for number, fragment in enumerate(fragments_of(tasks, 60)):
        replay.add(fragment)
        if number < 3:
            continue
        batch = replay.sample_sequences(int(replay.sizes.min()), 5, np.random.default_rng(number))
        for k in (0, 1):
            seen, weight = batch.buckets["state"].values[k], batch.weight[k]
            step = (seen[1:] - seen[:-1])[..., :2]
            assert (step[weight > 0] == step.new_tensor([1.0, 0.0])).all()


def test_demonstrations_are_followed_too(tasks: TaskSet) -> None:
    replay = Replay(tasks, ReplayConfig(capacity=1000, demonstrations=0.5))
    for fragment in fragments_of(tasks, 6):
        replay.add(fragment)
    shown = Trajectories(
        observations={"state": np.arange(21, dtype=np.float32).reshape(7, 3) + 100},
        actions=np.full((5, 2), 0.5, np.float32),
        labels=np.full((5, 2), 0.5, np.float32),
        rewards=np.arange(5, dtype=np.float32) + 50,
        terminated=np.zeros(5, bool),
        truncated=np.array([0, 1, 0, 0, 1], bool),
        success=np.zeros(5, bool),
        offsets=np.array([0, 2, 5]),
        start_id=np.zeros(2, np.int64),
    )
    replay.add_demonstrations({0: shown})
    batch = replay.sample_sequences(16, 4, np.random.default_rng(0), [0])
    rewards, weight = batch.fields["reward"][0, :, 8:], batch.weight[0, :, 8:]
    for b in range(8):
        first, length = int(rewards[0, b]) - 50, int(weight[:, b].sum())
        assert first + length == (2 if first < 2 else 5)
        row = first + (first >= 2)
        seen = batch.buckets["state"].values[0, : length + 1, 8 + b, 0]
        assert seen.tolist() == [100 + 3 * (row + t) for t in range(length + 1)]
