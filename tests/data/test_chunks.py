"""Sampling of state histories and action chunks from demonstrations."""

import numpy as np
import pytest

from mtrl.data import ChunkDataset, Trajectories
from mtrl.errors import ConfigError
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet

from ..distillation.made import made

TASKS = TaskSet(
    [made("made/wide", 3, ActionSpec(continuous=2)), made("made/narrow", 1, ActionSpec(continuous=1))]
)


def trajectories(lengths: list[int], state: int, action: int, base: float) -> Trajectories:
    """States count rows from `base`; labels count decisions from `base`."""
    steps, rows = sum(lengths), sum(lengths) + len(lengths)
    labels = np.repeat(base + np.arange(steps, dtype=np.float32)[:, None], action, axis=1)
    return Trajectories(
        observations={"state": np.repeat(base + np.arange(rows, dtype=np.float32)[:, None], state, axis=1)},
        actions=labels,
        labels=labels,
        rewards=np.zeros(steps, dtype=np.float32),
        terminated=np.zeros(steps, dtype=bool),
        truncated=np.zeros(steps, dtype=bool),
        success=np.ones(steps, dtype=bool),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        start_id=np.arange(len(lengths)),
    )


def dataset(history: int = 2, chunk: int = 3) -> ChunkDataset:
    data = {0: trajectories([4, 2], 3, 2, 0.0), 1: trajectories([5], 1, 1, 100.0)}
    return ChunkDataset(TASKS, data, history, chunk)


def test_a_sample_in_the_middle_by_hand() -> None:
    # decision 1 of the first episode saw row 1; before it stands row 0; labels 1, 2, 3 follow.
    batch = dataset().gather(np.array([[1], [6]]))
    np.testing.assert_array_equal(batch.buckets["state"].values[0, 0], [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(batch.fields["chunk"][0, 0], [[1, 1], [2, 2], [3, 3]])
    np.testing.assert_array_equal(batch.fields["real"][0, 0], [1, 1, 1])


def test_an_episodes_start_repeats_its_first_state() -> None:
    # decision 4 is the first of the second episode, whose first observation is row 5.
    batch = dataset().gather(np.array([[4], [6]]))
    np.testing.assert_array_equal(batch.buckets["state"].values[0, 0], [[5, 5, 5], [5, 5, 5]])


def test_past_an_episodes_end_nothing_is_real() -> None:
    # decision 3 is the last of the first episode: label 3 repeats and does not run into the next one.
    batch = dataset().gather(np.array([[3], [6]]))
    np.testing.assert_array_equal(batch.fields["chunk"][0, 0, :, 0], [3, 3, 3])
    np.testing.assert_array_equal(batch.fields["real"][0, 0], [1, 0, 0])


def test_narrow_tasks_are_padded_with_zeros() -> None:
    batch = dataset().gather(np.array([[0], [6]]))
    np.testing.assert_array_equal(batch.buckets["state"].values[1, 0], [[100, 0, 0], [100, 0, 0]])
    np.testing.assert_array_equal(batch.fields["chunk"][1, 0], [[100, 0], [101, 0], [102, 0]])


def test_every_task_gets_its_even_share_however_much_data_it_has() -> None:
    batch = dataset().sample(9, np.random.default_rng(0))
    assert batch.weight.shape == (2, 5), "nine samples over two tasks, rounded up"
    assert (batch.fields["chunk"][0] < 100).all() and (batch.fields["chunk"][1, :, :, 0] >= 100).all()


def test_equal_generators_give_equal_batches() -> None:
    first, second = (dataset().sample(8, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.fields["chunk"], second.fields["chunk"])


def test_moments_are_those_of_each_task() -> None:
    moments = dataset().moments
    rows = np.arange(8)
    np.testing.assert_allclose(moments.mean[0], [rows.mean()] * 3)
    np.testing.assert_allclose(moments.scale[0], [rows.std()] * 3, rtol=1e-6)
    np.testing.assert_allclose(moments.mean[1], [102.5, 0, 0])
    np.testing.assert_allclose(moments.scale[1, 1:], [1, 1])


def test_a_task_without_demonstrations_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no demonstration of made/narrow to learn from"):
        ChunkDataset(TASKS, {0: trajectories([4], 3, 2, 0.0)}, 1, 1)
