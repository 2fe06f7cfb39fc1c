"""Which worker hosts which lane, after a change of their number."""

from mtrl.rollout.collection.lane_placement import LanePlacement


def test_lanes_keep_their_homes_and_are_spread_over_another_number_of_workers() -> None:
    # the costly task's copies are placed as two lanes
    placement = LanePlacement([2, 2, 2], 3, [1.0, 1.0, 4.0])
    placement.reassign(0, [1, 2])
    assert [placement.take(()) for _ in range(3)] == [0, 1, 2]
    state = placement.state_dict()
    same, fewer, more = (LanePlacement([2, 2, 2], slots, [1.0, 1.0, 4.0]) for slots in (3, 2, 6))
    for other in (same, fewer, more):
        other.load_state_dict(state)
        assert other.lanes == placement.lanes
        assert [other.take(()) for _ in range(2)] == [3, 0]
    assert same.home == placement.home
    assert [len(fewer.of(slot)) for slot in range(2)] == [2, 2]
    assert [len(more.of(slot)) for slot in range(6)] == [1, 1, 1, 1, 0, 0]
