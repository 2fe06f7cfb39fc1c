from __future__ import annotations

import pytest

from mtrl.errors import SpaceError
from mtrl.spaces import ActionSpec, ObservationSpec


def test_buckets_stand_in_layout_order() -> None:
    assert ObservationSpec(state=3).buckets == ("state",)
    assert ObservationSpec(pixels=(4, 84, 84)).buckets == ("pixels",)
    assert ObservationSpec(pixels=(4, 84, 84), state=3).buckets == ("state", "pixels")


@pytest.mark.parametrize(
    ("state", "pixels", "message"),
    [
        (None, None, "got neither"),
        (0, None, "at least one entry; got 0"),
        (None, (0, 84, 84), "all positive"),
        (None, (84, 84), "channels, height, width"),
    ],
)
def test_impossible_observations_are_refused(state: int | None, pixels: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        ObservationSpec(state=state, pixels=pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize(("continuous", "discrete"), [(0, 0), (2, 3), (-1, 0), (-1, 3), (3, -1)])
def test_an_action_is_one_of_two_kinds(continuous: int, discrete: int) -> None:
    with pytest.raises(SpaceError, match=f"continuous={continuous}, discrete={discrete}"):
        ActionSpec(continuous=continuous, discrete=discrete)


def test_kinds_of_action() -> None:
    assert ActionSpec(discrete=18).is_discrete
    assert not ActionSpec(continuous=4).is_discrete
