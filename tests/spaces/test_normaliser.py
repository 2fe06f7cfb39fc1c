"""Running moments: any split of the data gives the moments of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtrl.errors import SpaceError
from mtrl.spaces import RunningMoments

values_of_two_dimensions = arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.just(2)),
    elements=st.floats(-1e3, 1e3, allow_nan=False, width=32),
)


@settings(deadline=None, max_examples=50)
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
    frozen = moments.freeze(np.array([[True, False], [True, True], [True, True]]))
    # task 0: mean (1 + 3) / 2, deviation 1; task 1 never varies, so its scale is the floor; task 2 is unseen
    np.testing.assert_array_equal(frozen.mean, [[2, 0], [0, 5], [0, 0]])
    np.testing.assert_allclose(frozen.scale, [[1, 1], [0.01, 0.01], [1, 1]])
    assert frozen.mean.dtype == frozen.scale.dtype == np.float32


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
