"""Fragments of counting tasks, a replay of them, and a check of what it samples."""

from __future__ import annotations

from itertools import islice

import numpy as np

from mtrl.data import Batch, Replay, ReplayConfig
from mtrl.rollout import CollectionConfig, Fragment, LocalFragments, PolicySnapshot, RuntimeConfig
from mtrl.tasks import TaskSet


def fragments_of(tasks: TaskSet, count: int, copies: int = 2, steps: int = 4) -> list[Fragment]:
    settings = CollectionConfig(copies=copies, steps=steps, stagger=False)
    source = LocalFragments(tasks, RuntimeConfig(), settings, PolicySnapshot("random"), seed=1)
    found = list(islice(source.stream(), count))
    source.close()
    return found


def filled(tasks: TaskSet, count: int = 12, capacity: int = 1000) -> Replay:
    replay = Replay(tasks, ReplayConfig(capacity=capacity))
    for fragment in fragments_of(tasks, count):
        replay.add(fragment)
    return replay


def require_true_transitions(batch: Batch) -> None:
    """The counter's state is (t, start, sum of actions): every transition can be checked by itself."""
    seen, following = batch.buckets["state"].values[:2, 0], batch.buckets["state"].values[:2, 1]
    np.testing.assert_array_equal(following[..., 0], seen[..., 0] + 1)
    np.testing.assert_array_equal(following[..., 1], seen[..., 1])
    added = batch.fields["continuous"][:2].sum(-1)
    np.testing.assert_allclose(following[..., 2], seen[..., 2] + added, atol=1e-5)
    np.testing.assert_array_equal(batch.fields["reward"][:2], following[..., 0])
    np.testing.assert_array_equal(batch.fields["truncated"][0], following[0, :, 0] == 5)
    np.testing.assert_array_equal(batch.fields["terminated"][1], following[1, :, 0] == 3)
    assert not batch.fields["terminated"][0].any()
    assert not batch.fields["truncated"][1].any()
    frames = batch.buckets["pixels"].values[0]
    np.testing.assert_array_equal(frames[1, :, 0, 0, 0], frames[0, :, 0, 0, 0] + 1)
