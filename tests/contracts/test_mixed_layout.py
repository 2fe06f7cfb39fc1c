"""What the three tasks look like side by side."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl import registry
from mtrl.errors import SpaceError
from mtrl.rollout import Acting, RandomPolicy, generator_for
from mtrl.tasks import TaskSet

from .conftest import NAMES


def test_the_layout_holds_all_three(mixed: TaskSet) -> None:
    layout = mixed.layout
    assert mixed.names == NAMES
    assert layout.buckets == ("state", "pixels")
    assert (layout.state_size, layout.pixels_shape) == (39, (4, 84, 84))
    assert (layout.continuous_size, layout.discrete_size) == (4, 18)
    assert layout.members("state").tolist() == [0, 1]
    assert layout.members("pixels").tolist() == [2]


def test_masks_are_those_of_each_task(mixed: TaskSet) -> None:
    layout = mixed.layout
    assert layout.state_mask.sum(axis=1).tolist() == [39, 5, 0]
    assert layout.continuous_mask.sum(axis=1).tolist() == [4, 1, 0]
    assert layout.legal_mask.sum(axis=1).tolist() == [0, 0, 18]
    assert layout.discrete_tasks.tolist() == [False, False, True]
    np.testing.assert_array_equal(layout.continuous_mask[1], [True, False, False, False])


def test_indices_are_stable_and_the_order_is_the_user_s(mixed: TaskSet) -> None:
    assert [mixed.index(name) for name in NAMES] == [0, 1, 2]
    reversed_set = registry.task_set(list(reversed(NAMES)))
    assert reversed_set.names == tuple(reversed(NAMES))
    assert reversed_set.protocol_hash != registry.task_set(list(NAMES)).protocol_hash


def test_pixels_of_two_shapes_do_not_mix(mixed: TaskSet) -> None:
    other = registry.task("atari/Pong", {"frame_stack": 3})
    with pytest.raises(SpaceError, match=r"4x84x84 .* and 3x84x84 "):
        TaskSet([*mixed, other])


def test_one_call_acts_on_copies_of_different_tasks(mixed: TaskSet) -> None:
    rows = np.array([2, 0, 1, 0])
    generators = [generator_for(0, mixed[k].name, copy) for copy, k in enumerate(rows)]
    action = RandomPolicy(mixed).act(
        mixed.layout.zeros(4),
        rows,
        {},
        np.ones(4, dtype=bool),
        acting=Acting(explore=True),
        generators=generators,
    )
    np.testing.assert_array_equal(action.continuous != 0, mixed.layout.continuous_mask[rows])
    assert 0 <= action.discrete[0] < 18
    assert not action.discrete[1:].any()
