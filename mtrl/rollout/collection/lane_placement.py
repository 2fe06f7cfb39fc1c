"""Which slot hosts which lane, and whose turn it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ..workers.worker import LaneAssignment
from .balance import balance
from .round_robin import RoundRobin

AHEAD = 2
"""Turns that lanes may be behind others, in turns per lane, where tasks have shares and fragments arrive."""
LEAST_SHARE = 1e-3
"""Share below which a task's lanes are dealt as if it had this one."""


class LaneDeal:
    """L lanes in the order of tasks and copies, each at home in a slot."""

    def __init__(self, copies: Sequence[int], slots: int, step_seconds: Sequence[float]) -> None:
        """`copies` [K] of each task, dealt by the cost of a decision of one copy, `step_seconds` [K]."""
        self._copies, self._slots, self._costs = copies, slots, step_seconds
        self._shares: npt.NDArray[np.float64] | None = None
        self._deal(step_seconds)

    def __len__(self) -> int:
        return len(self.lanes)

    def of(self, slot: int) -> list[int]:
        """Lanes at home in a slot."""
        return [lane for lane, home in enumerate(self.home) if home == slot]

    def of_tasks(self, tasks: Collection[int]) -> list[int]:
        """Lanes of these tasks."""
        return [lane for lane, share in enumerate(self.lanes) if share.task_index in tasks]

    def set_shares(self, shares: npt.NDArray[np.float64], *, move: bool) -> None:
        """[K], at least 0, sums to 1: how often the lanes of each task have a turn. `move` also deals them
        again, so that all slots get equal work.
        """
        RoundRobin(len(self._copies)).set_shares(shares)  # refuses what are no shares
        if move:
            self._deal([c * max(p, LEAST_SHARE) for c, p in zip(self._costs, shares.tolist(), strict=True)])
        weights = shares[[share.task_index for share in self.lanes]]
        self._turns.set_shares(weights / weights.sum())
        self._shares = shares

    def take(self, without: Sequence[int]) -> int:
        """The lane that has the next turn."""
        return self._turns.take(without)

    def next_of(self, slot: int, without: Sequence[int], up: Sequence[int]) -> int | None:
        """The lane that has the next turn in a slot, where each slot goes at its own pace; None where it must
        wait for others: with shares, no lane runs ahead of another whose slot is `up` for long.
        """
        coming = self._coming[slot]
        if self._shares is None and not coming:
            coming.extend(self.of(slot))
        elif self._shares is not None:
            out = [*without, *(lane for lane, home in enumerate(self.home) if home not in up)]
            while not coming and len(set(out)) < len(self) and self._waiting() < AHEAD * len(self):
                lane = self.take(out)
                self._coming[self.home[lane]].append(lane)
        while coming and coming[0] in without:
            coming.popleft()
        return coming.popleft() if coming else None

    def put_back(self, lane: int) -> None:
        """Gives a lane that `next_of` named its turn again."""
        self._coming[self.home[lane]].appendleft(lane)

    def reassign(self, slot: int, up: Sequence[int]) -> None:
        """Moves the lanes of a slot to those that are `up`."""
        for lane in self.of(slot):
            self.home[lane] = min(up, key=lambda other: len(self.of(other)))
        self._coming[slot].clear()

    def state_dict(self) -> dict[str, Any]:
        """Lanes, homes and turns."""
        lanes = [asdict(share) for share in self.lanes]
        return {
            "lanes": lanes,
            "home": list(self.home),
            "slots": self._slots,
            "turns": self._turns.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; over another number of slots than there was, lanes are spread evenly."""
        self.lanes = [LaneAssignment(**share) for share in state["lanes"]]
        same = state["slots"] == self._slots
        self.home = list(state["home"]) if same else [k % self._slots for k in range(len(self.lanes))]
        self._turns = RoundRobin(len(self.lanes))
        self._turns.load_state_dict(state["turns"])

    def _deal(self, costs: Sequence[float]) -> None:
        dealt = balance(self._copies, self._slots, costs)
        home = {share: slot for slot, shares in enumerate(dealt) for share in shares}
        self.lanes = sorted(home, key=lambda share: (share.task_index, share.first_copy))
        self.home = [home[share] for share in self.lanes]
        self._turns = RoundRobin(len(self.lanes))
        self._coming: list[deque[int]] = [deque() for _ in range(self._slots)]

    def _waiting(self) -> int:
        return sum(map(len, self._coming))
