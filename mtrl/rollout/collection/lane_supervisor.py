"""Faults and openings of the lanes of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mtrl.errors import EnvironmentFault

from ..fragment import Fragment
from ..runtime import FaultHandler, FaultLog
from ..workers.backend import DEATHS
from ..workers.worker import LaneAssignment

REOPENED_SEED = 1_000_003
"""Added to the seed each time a lane is opened again, so that it does not repeat its first episodes."""


@dataclass
class _Life:
    """What a lane has been through."""

    openings: int = 0
    rounds: int = 0
    """Episodes of each copy that were begun, in all openings together."""
    base: int = 0
    """Those before this opening."""
    faults: int = 0
    """Since the last fragment."""
    deaths: int = 0
    """Workers lost over it since the last fragment, where nobody is surely to blame."""


class LaneSupervisor:
    """Faults and openings of lanes, alike wherever they are stepped.

    A lane that faults is opened again, with new episodes. A task is quarantined after `attempts` faults of
    one of its lanes with no fragment between them.
    """

    def __init__(self, seed: int, attempts: int, on_fault: FaultHandler | None) -> None:
        """Nothing opened yet."""
        self.quarantined: dict[int, str] = {}
        self._seed, self._attempts, self._on_fault = seed, attempts, on_fault or FaultLog()
        self._lives: defaultdict[LaneAssignment, _Life] = defaultdict(_Life)

    def openings(self, share: LaneAssignment) -> int:
        """Times that the lane was opened."""
        return self._lives[share].openings

    def opening_seed(self, share: LaneAssignment) -> int:
        """Seed of the next opening of the lane; the first is the run's own."""
        life = self._lives[share]
        life.openings, life.base = life.openings + 1, life.rounds
        return self.reopening_seed(share)

    def reopening_seed(self, share: LaneAssignment) -> int:
        """Seed with which the lane was opened last."""
        return self._seed + REOPENED_SEED * (self._lives[share].openings - 1)

    def state_dict(self) -> dict[str, Any]:
        """Openings, delivered rounds and faults of every lane, and the quarantine."""
        lives = sorted(self._lives.items(), key=lambda item: (item[0].task_index, item[0].first_copy))
        return {
            "seed": self._seed,
            "quarantined": dict(self.quarantined),
            "lanes": [{"share": asdict(share), **asdict(life)} for share, life in lives if life.openings],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; `quarantined` stays the same object, which others hold."""
        self._seed = int(state["seed"])
        self.quarantined.clear()
        self.quarantined.update(state["quarantined"])
        for entry in map(dict, state["lanes"]):
            share = LaneAssignment(**entry.pop("share"))
            self._lives[share] = _Life(**entry)

    def delivered(self, share: LaneAssignment, fragment: Fragment) -> Fragment:
        """Takes in a fragment: the epoch is the lane's, and episode ids go on where its former openings
        stopped.
        """
        life = self._lives[share]
        life.faults = life.deaths = 0
        fragment.epoch = life.openings - 1
        fragment.episode_id += life.base * share.total_copies
        life.rounds = int(fragment.episode_id.max()) // share.total_copies + 1
        return fragment

    def failed(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Counts a fault, quarantines when it is one too many, and tells the handler."""
        self._lives[share].faults += 1
        if self._lives[share].faults >= self._attempts:
            self._quarantine(share, fault)
        else:
            self._on_fault(fault, False)

    def lost(self, share: LaneAssignment, fault: EnvironmentFault, blamed: bool) -> None:
        """Counts the loss of a worker over the lane: a fault where the lane is surely to blame; otherwise it
        quarantines after `DEATHS` of them.
        """
        if blamed:
            self.failed(share, fault)
            return
        self._lives[share].deaths += 1
        if self._lives[share].deaths >= DEATHS:
            self._quarantine(share, fault)

    def _quarantine(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Takes the lane's task out for good and tells the handler."""
        self.quarantined[share.task_index] = fault.summary
        self._on_fault(fault, True)
