"""Faults and openings of the lanes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mtrl.errors import EnvironmentFault

from .fragment import Fragment
from .runtime import FaultHandler, FaultLog
from .slots import DEATHS
from .worker import LaneAssignment

REOPENED_SEED = 1_000_003
"""Added to the seed each time a lane is opened again, so that it does not repeat its first episodes."""


class LaneSupervisor:
    """Faults and openings of lanes, alike wherever they are stepped.

    A lane that faults is opened again, with new episodes. A task is quarantined after `attempts` faults of
    one of its lanes with no fragment between them.
    """

    def __init__(self, seed: int, attempts: int, on_fault: FaultHandler | None) -> None:
        """Nothing opened yet."""
        self.quarantined: dict[int, str] = {}
        self._seed, self._attempts, self._on_fault = seed, attempts, on_fault or FaultLog()
        self._openings: dict[LaneAssignment, int] = {}
        self._rounds: dict[LaneAssignment, int] = {}
        self._base: dict[LaneAssignment, int] = {}
        self._faults: dict[LaneAssignment, int] = {}
        self._deaths: dict[LaneAssignment, int] = {}

    def openings(self, share: LaneAssignment) -> int:
        """Times that the lane was opened."""
        return self._openings.get(share, 0)

    def opening_seed(self, share: LaneAssignment) -> int:
        """Seed of the next opening of the lane; the first is the run's own."""
        opened = self._openings.get(share, 0)
        self._openings[share] = opened + 1
        self._base[share] = self._rounds.get(share, 0)
        return self._seed + REOPENED_SEED * opened

    def reopening_seed(self, share: LaneAssignment) -> int:
        """Seed with which the lane was opened last."""
        return self._seed + REOPENED_SEED * (self._openings.get(share, 1) - 1)

    def state_dict(self) -> dict[str, Any]:
        """Openings, delivered rounds and faults of every lane, and the quarantine."""
        lanes = sorted(self._openings, key=lambda share: (share.task_index, share.first_copy))
        return {
            "seed": self._seed,
            "quarantined": dict(self.quarantined),
            "lanes": [
                {
                    "share": asdict(share),
                    "openings": self._openings[share],
                    "rounds": self._rounds.get(share, 0),
                    "base": self._base.get(share, 0),
                    "faults": self._faults.get(share, 0),
                }
                for share in lanes
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; `quarantined` stays the same object, which others hold."""
        self._seed = int(state["seed"])
        self.quarantined.clear()
        self.quarantined.update(state["quarantined"])
        for entry in state["lanes"]:
            share = LaneAssignment(**entry["share"])
            self._openings[share], self._rounds[share] = entry["openings"], entry["rounds"]
            self._base[share], self._faults[share] = entry["base"], entry["faults"]

    def delivered(self, share: LaneAssignment, fragment: Fragment) -> Fragment:
        """Takes in a fragment: the epoch is the lane's, and episode ids go on where its former openings
        stopped.
        """
        self._faults[share] = self._deaths[share] = 0
        fragment.epoch = self._openings[share] - 1
        fragment.episode_id += self._base[share] * share.total_copies
        self._rounds[share] = int(fragment.episode_id.max()) // share.total_copies + 1
        return fragment

    def failed(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Counts a fault, quarantines when it is one too many, and tells the handler."""
        self._faults[share] = self._faults.get(share, 0) + 1
        if self._faults[share] >= self._attempts:
            self.quarantine(share, fault)
        else:
            self._on_fault(fault, False)

    def lost(self, share: LaneAssignment, fault: EnvironmentFault, blamed: bool) -> None:
        """Counts the loss of a worker over the lane: a fault where the lane is surely to blame; otherwise it
        quarantines after `DEATHS` of them.
        """
        if blamed:
            self.failed(share, fault)
            return
        self._deaths[share] = self._deaths.get(share, 0) + 1
        if self._deaths[share] >= DEATHS:
            self.quarantine(share, fault)

    def quarantine(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Takes the lane's task out for good and tells the handler."""
        self.quarantined[share.task_index] = fault.summary
        self._on_fault(fault, True)
