"""Padding and masks of two state tasks, one pixel task, and one that fills both buckets."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.errors import SpaceError
from mtrl.spaces import ActionSpec, Layout, ObservationSpec

LAYOUT = Layout(
    observations=(
        ObservationSpec(state=2),
        ObservationSpec(pixels=(4, 8, 8)),
        ObservationSpec(state=3, pixels=(4, 8, 8)),
    ),
    actions=(ActionSpec(continuous=1), ActionSpec(discrete=3), ActionSpec(continuous=2)),
)


def test_sizes_are_those_of_the_largest_task() -> None:
    assert LAYOUT.task_count == 3
    assert (LAYOUT.state_size, LAYOUT.pixels_shape) == (3, (4, 8, 8))
    assert (LAYOUT.continuous_size, LAYOUT.discrete_size) == (2, 3)
    assert LAYOUT.buckets == ("state", "pixels")


def test_masks() -> None:
    np.testing.assert_array_equal(LAYOUT.state_mask, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(LAYOUT.continuous_mask, [[1, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(LAYOUT.legal_mask, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(LAYOUT.discrete_tasks, [False, True, False])
    assert LAYOUT.state_mask.dtype == LAYOUT.discrete_tasks.dtype == np.bool_


def test_members_of_buckets() -> None:
    assert LAYOUT.members("state").tolist() == [0, 2]
    assert LAYOUT.members("pixels").tolist() == [1, 2]


def test_zeros_hold_every_bucket_in_its_own_type() -> None:
    zeros = LAYOUT.zeros(5, 2)
    assert {bucket: (rows.shape, rows.dtype) for bucket, rows in zeros.items()} == {
        "state": ((5, 2, 3), np.float32),
        "pixels": ((5, 2, 4, 8, 8), np.uint8),
    }
    assert not any(rows.any() for rows in zeros.values())


def test_native_state_is_a_view_of_the_unpadded_part() -> None:
    padded = np.arange(6, dtype=np.float32).reshape(2, 3)
    native = LAYOUT.native_state(0, padded)
    np.testing.assert_array_equal(native, [[0, 1], [3, 4]])
    assert np.shares_memory(native, padded)
    assert LAYOUT.native_state(1, padded).shape == (2, 0)


def test_actions_are_padded_with_zeros() -> None:
    padded = LAYOUT.pad_continuous(np.full((2, 1), 0.5, dtype=np.float32))
    np.testing.assert_array_equal(padded, [[0.5, 0], [0.5, 0]])
    assert padded.dtype == np.float32


def test_a_layout_of_one_modality_has_no_other() -> None:
    layout = Layout((ObservationSpec(state=2),), (ActionSpec(continuous=1),))
    assert layout.buckets == ("state",)
    assert layout.pixels_shape is None
    assert (layout.discrete_size, layout.legal_mask.shape) == (0, (1, 0))
    with pytest.raises(SpaceError, match=r"no bucket 'pixels'; it has \['state'\]"):
        layout.bucket_shape("pixels")
    with pytest.raises(SpaceError, match="no bucket 'sound'"):
        layout.bucket_dtype("sound")


def test_mixed_pixel_shapes_are_refused_with_both_shapes() -> None:
    observations = (ObservationSpec(pixels=(4, 84, 84)), ObservationSpec(pixels=(3, 64, 64)))
    with pytest.raises(SpaceError, match="3x64x64 and 4x84x84"):
        Layout(observations, (ActionSpec(discrete=2), ActionSpec(discrete=2)))


def test_a_layout_pairs_observations_with_actions() -> None:
    with pytest.raises(SpaceError, match="one observation and one action spec per task"):
        Layout((ObservationSpec(state=2),), ())
    with pytest.raises(SpaceError, match="at least one task"):
        Layout((), ())
