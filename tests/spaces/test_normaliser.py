"""Running moments: any split of the data gives the moments of the whole."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtrl.errors import SpaceError
from mtrl.spaces import RunningMoments, warn_of_constants

values_of_two_dimensions = arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.just(2)),
    elements=st.floats(-1e3, 1e3, allow_nan=False, width=32),
)


@settings(max_examples=50)
@given(values_of_two_dimensions, st.data())
def test_merged_parts_have_the_moments_of_the_whole(values: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    whole = RunningMoments(1, 2)
    for part in np.split(values, cuts):
        piece = RunningMoments(1, 2)
        piece.update(0, part)
        if len(part):
            whole.add(0, float(piece.count[0]), piece.mean[0], piece.squares[0])
    assert whole.count[0] == len(values)
    np.testing.assert_allclose(whole.mean[0], values.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.squares[0] / len(values), values.var(axis=0), rtol=1e-6, atol=1e-6)


def test_tasks_are_apart_and_padding_is_left_alone() -> None:
    moments = RunningMoments(3, 2)
    moments.update(0, np.array([[1.0, 0.0], [3.0, 0.0]]))
    moments.update(1, np.array([[[0.0, 5.0]], [[0.0, 5.0]]]))
    mask = np.array([[True, False], [True, True], [True, True]])
    frozen = moments.freeze(mask)
    # task 0: mean (1 + 3) / 2, deviation 1; task 1 never varies: 5 is 5 times its own size, and 0 is seen in
    # units of the one entry that is not 0; task 2 is unseen
    np.testing.assert_array_equal(frozen.mean, [[2, 0], [0, 5], [0, 0]])
    np.testing.assert_array_equal(frozen.scale, [[1, 1], [5, 5], [1, 1]])
    assert frozen.mean.dtype == frozen.scale.dtype == np.float32
    assert moments.constants(mask) == {0: [], 1: [0, 1]}


def _far_from_the_smallest_float(values: np.ndarray) -> np.ndarray:
    """Below float32's normal numbers, scaling by a power of two rounds."""
    return np.where(np.abs(values) < 2.0**-30, 0.0, values)


@settings(max_examples=50)
@given(values_of_two_dimensions.map(_far_from_the_smallest_float), st.integers(-60, 60))
def test_statistics_follow_a_power_of_two_bit_for_bit(values: np.ndarray, exponent: int) -> None:
    plain, scaled = RunningMoments(1, 2), RunningMoments(1, 2)
    for part in np.split(values, [len(values) // 2]):
        plain.update(0, part)
        scaled.update(0, part * 2.0**exponent)
    mask = np.ones((1, 2), dtype=bool)
    before, after = plain.freeze(mask), scaled.freeze(mask)
    np.testing.assert_array_equal(after.mean, before.mean * np.float32(2.0**exponent))
    zero = (values == 0).all()
    np.testing.assert_array_equal(after.scale, before.scale * np.float32(1.0 if zero else 2.0**exponent))
    assert plain.constants(mask) == scaled.constants(mask)


def test_small_entries_are_data_and_rounding_is_not() -> None:
    draws, count = np.random.default_rng(0), 1000
    noise = draws.normal(size=(count, 6))
    clock = np.float32(1.7e9 + 0.02 * np.arange(count))
    values = np.stack(
        [
            noise[:, 0],
            1e-8 * noise[:, 1],  # small, such as a length in metres at the scale of atoms
            1e-17 * noise[:, 2],  # what a simulator leaves of 0 next to numbers of size 1
            np.float32(0.7) + np.float32(6e-8) * (noise[:, 3] > 0),  # one unit in the last place of float32
            clock,  # float32 counts it in steps of 128
            1e8 * noise[:, 5],
        ],
        axis=1,
    )
    moments = RunningMoments(1, 6)
    moments.update(0, values.astype(np.float32))
    mask = np.ones((1, 6), dtype=bool)
    assert moments.constants(mask) == {0: [2, 3, 4]}
    frozen = moments.freeze(mask)
    standardised = (values.astype(np.float32) - frozen.mean) / frozen.scale
    np.testing.assert_allclose(standardised.std(axis=0)[[0, 1, 5]], 1.0, rtol=1e-3)
    assert np.abs(standardised[:, [2, 3, 4]]).max() < 1e-6


def test_constants_are_named_once_with_task_and_dimension() -> None:
    with pytest.warns(RuntimeWarning, match=r"a/push \[0, 2-4, 7\], a/pull \[1\]$"):
        warn_of_constants({"a/push": [0, 2, 3, 4, 7], "a/reach": [], "a/pull": [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_constants({"a/push": []})


def test_a_large_offset_does_not_drown_the_variance() -> None:
    moments = RunningMoments(1, 1)
    for value in (1e8 - 1, 1e8, 1e8 + 1):
        moments.update(0, np.array([[value]]))
    np.testing.assert_allclose(moments.squares[0, 0], 2.0)


def test_state_survives_a_round_trip() -> None:
    moments = RunningMoments(2, 2)
    moments.update(1, np.array([[1.0, 2.0], [3.0, 5.0]]))
    saved = moments.state_dict()
    moments.update(1, np.array([[9.0, 9.0]]))
    restored = RunningMoments(2, 2)
    restored.load_state_dict(saved)
    assert restored.count.tolist() == [0, 2]
    np.testing.assert_array_equal(restored.mean[1], [2, 3.5])
    np.testing.assert_array_equal(restored.squares[1], [2, 4.5])


def test_unpadded_rows_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"length 4; got \(8, 2\)"):
        RunningMoments(1, 4).update(0, np.zeros((8, 2)))


def test_no_rows_change_nothing() -> None:
    moments = RunningMoments(1, 2)
    moments.update(0, np.zeros((0, 2)))
    assert moments.count.tolist() == [0]
