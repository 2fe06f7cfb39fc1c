"""What a consumer sees of the lanes: their fragments follow on each other, and none comes twice or late."""

from __future__ import annotations

from mtrl.rollout import Fragment, LaneAssignment

Lane = tuple[int, int]
"""Task and first copy."""


def lane_of(assignment: LaneAssignment) -> Lane:
    """The lane of an assignment."""
    return assignment.task_index, assignment.first_copy


class Ledger:
    """Counts fragments that should not have come."""

    def __init__(self) -> None:
        """No fragment has come."""
        self.epochs: dict[Lane, int] = {}
        """Epoch of each lane's last fragment."""
        self.late = 0
        """Fragments of an epoch before that of the lane's last one: of an actor that was replaced."""
        self.disordered = 0
        """Fragments that came twice, or after a gap within an epoch."""
        self._next_step: dict[Lane, int] = {}
        self._episodes: set[tuple[int, int]] = set()

    def add(self, fragment: Fragment) -> None:
        """A fragment, as it is delivered."""
        lane, newest = (
            (fragment.task_index, fragment.first_copy),
            self.epochs.get(fragment_lane(fragment), -1),
        )
        if fragment.epoch < newest:
            self.late += 1
            return
        expected = self._next_step[lane] if fragment.epoch == newest else 0
        ended = {(lane[0], int(e)) for e in fragment.episode_id[tuple(fragment.final_index.T)]}
        if fragment.first_step != expected or ended & self._episodes:
            self.disordered += 1
        self._episodes |= ended
        self.epochs[lane] = fragment.epoch
        self._next_step[lane] = fragment.first_step + fragment.reward.shape[0]


def fragment_lane(fragment: Fragment) -> Lane:
    """The lane of a fragment."""
    return fragment.task_index, fragment.first_copy
