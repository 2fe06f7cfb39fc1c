"""Sequences of the three tasks side by side, from what their lanes did."""

from __future__ import annotations

import numpy as np

from mtrl.data import Replay, ReplayConfig
from mtrl.rollout import Acting, Extra, Fragment, LaneAssignment, RolloutWorker
from mtrl.tasks import TaskSet

from ..walk import WALK
from .conftest import COPIES, HORIZON

STEPS = HORIZON - 1
EXTRAS = (Extra("log_probability", replayed=True),)


def test_sequences_of_mixed_tasks(worker: RolloutWorker, mixed: TaskSet) -> None:
    replay = Replay(mixed, ReplayConfig(capacity=100), EXTRAS)
    parts: dict[int, list[Fragment]] = {}
    for k in range(len(mixed)):
        lane = LaneAssignment(k, COPIES, 0, COPIES)
        worker.open(lane, WALK, seed=11)
        parts[k] = [worker.collect(lane, STEPS, WALK, Acting(explore=True)) for _ in range(4)]
        assert [fragment.first_step for fragment in parts[k]] == [0, STEPS, 2 * STEPS, 3 * STEPS]
        for fragment in parts[k]:
            replay.add(fragment)
    batch = replay.sample_sequences(16, HORIZON, np.random.default_rng(0))
    assert batch.buckets["state"].values.shape == (2, HORIZON + 1, 16, 39)
    assert batch.buckets["pixels"].values.shape == (1, HORIZON + 1, 16, 4, 84, 84)
    lengths = batch.weight.sum(dim=1)
    assert (lengths >= 1).all()
    # the walking policy records minus the decision's number, and every episode lasts for the horizon
    decisions = -batch.fields["log_probability"].numpy()
    for k in range(len(mixed)):
        bucket = mixed[k].observation.buckets[0]
        row = batch.buckets[bucket].rows.tolist().index(k)
        seen = batch.buckets[bucket].values[row].numpy()
        known = observations_of(parts[k], bucket)
        for b in range(16):
            length, first = int(lengths[k, b]), decisions[k, 0, b]
            np.testing.assert_array_equal(decisions[k, :length, b], first + np.arange(length))
            assert np.isnan(decisions[k, length:, b]).all()
            ended = bool(batch.fields["truncated"][k, length - 1, b])
            assert ended == (first + length == HORIZON)
            for t in range(length + 1):
                assert seen[t, b].tobytes() in known
            assert not seen[length + 1 :, b].any()


def observations_of(fragments: list[Fragment], bucket: str) -> set[bytes]:
    """Every observation of the fragments, as bytes."""
    found: set[bytes] = set()
    for fragment in fragments:
        rows = fragment.observations[bucket]
        found |= {row.tobytes() for row in rows.reshape(-1, *rows.shape[2:])}
        found |= {row.tobytes() for row in fragment.final_observations[bucket]}
    return found
