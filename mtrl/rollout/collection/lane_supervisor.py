"""Faults and openings of the lanes of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mtrl.errors import EnvironmentFault

from ..fragment import Fragment
from ..runtime import FaultHandler, FaultLog
from ..workers.worker import LaneAssignment

REOPENED_SEED = 1_000_003
"""Added to the seed each time a lane is opened again, so that it does not repeat its first episodes."""


@dataclass
class _Record:
    """History of a lane."""

    openings: int = 0
    rounds: int = 0
    """Episodes of each copy that were begun, in all openings together."""
    base: int = 0
    """Episodes of each copy that were begun before this opening."""
    faults: int = 0
    """Faults since the last fragment."""


class LaneSupervisor:
    """Faults and openings of lanes, the same in one process and in a pool.

    A lane that faults is opened again, with new episodes. A task is quarantined after `attempts` faults of
    one of its lanes with no fragment between them.
    """

    def __init__(self, seed: int, attempts: int, on_fault: FaultHandler | None) -> None:
        """`seed` is the seed of every lane's first opening."""
        self.quarantined: dict[int, str] = {}
        self._seed, self._attempts, self._on_fault = seed, attempts, on_fault or FaultLog()
        self._records: defaultdict[LaneAssignment, _Record] = defaultdict(_Record)

    def openings(self, assignment: LaneAssignment) -> int:
        """Times that the lane was opened."""
        return self._records[assignment].openings

    def opening_seed(self, assignment: LaneAssignment) -> int:
        """Counts an opening of the lane and returns its seed; the first is the run's own."""
        record = self._records[assignment]
        record.openings, record.base = record.openings + 1, record.rounds
        return self.reopening_seed(assignment)

    def reopening_seed(self, assignment: LaneAssignment) -> int:
        """Seed with which the lane was opened last."""
        return self._seed + REOPENED_SEED * (self._records[assignment].openings - 1)

    def state_dict(self) -> dict[str, Any]:
        """Openings, delivered rounds and faults of every lane, and the quarantine."""
        records = sorted(self._records.items(), key=lambda item: (item[0].task_index, item[0].first_copy))
        return {
            "seed": self._seed,
            "quarantined": dict(self.quarantined),
            "lanes": [
                {"share": asdict(assignment), **asdict(found)}
                for assignment, found in records
                if found.openings
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; `quarantined` stays the same object, because others refer to it."""
        self._seed = int(state["seed"])
        self.quarantined.clear()
        self.quarantined.update(state["quarantined"])
        for entry in map(dict, state["lanes"]):
            assignment = LaneAssignment(**entry.pop("share"))
            entry.pop("deaths", None)  # counted by earlier versions
            self._records[assignment] = _Record(**entry)

    def delivered(self, assignment: LaneAssignment, fragment: Fragment) -> Fragment:
        """Sets the fragment's epoch to the lane's, and continues the episode ids of its former openings."""
        record = self._records[assignment]
        record.faults = 0
        fragment.epoch = record.openings - 1
        fragment.episode_id += record.base * assignment.total_copies
        record.rounds = int(fragment.episode_id.max()) // assignment.total_copies + 1
        return fragment

    def failed(self, assignment: LaneAssignment, fault: EnvironmentFault) -> None:
        """Counts and reports a fault; quarantines the lane's task at the last attempt."""
        self._records[assignment].faults += 1
        last = self._records[assignment].faults >= self._attempts
        if last:
            self.quarantined[assignment.task_index] = fault.summary
        self._on_fault(fault, last)
