"""Assignment of lanes to slots by the cost of a decision of each task, and the order of lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import ceil
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, EnvironmentFault

from ..workers.backend import Backend, Finished, call_all
from ..workers.calls import Measure
from ..workers.worker import LaneAssignment
from .round_robin import RoundRobin

AHEAD = 2
"""Turns that lanes may be behind others, in turns per lane, where tasks have shares and fragments arrive."""
LEAST_SHARE = 1e-3
"""Share below which a task's lanes are placed as if it had this one."""
UNKNOWN_SECONDS = 1e-3
"""Cost of every task when none could be measured."""


class LanePlacement:
    """L lanes in the order of tasks and copies, each assigned to a slot."""

    def __init__(self, copies: Sequence[int], slots: int, step_seconds: Sequence[float]) -> None:
        """`copies` [K] of each task, placed by the cost of a decision of one copy, `step_seconds` [K]."""
        self._copies, self._slots, self._costs = copies, slots, step_seconds
        self._shares: npt.NDArray[np.float64] | None = None
        self._place(step_seconds)

    def __len__(self) -> int:
        return len(self.lanes)

    def of(self, slot: int) -> list[int]:
        """Lanes assigned to a slot."""
        return [lane for lane, home in enumerate(self.home) if home == slot]

    def of_tasks(self, tasks: Collection[int]) -> list[int]:
        """Lanes of these tasks."""
        return [lane for lane, share in enumerate(self.lanes) if share.task_index in tasks]

    def set_shares(self, shares: npt.NDArray[np.float64], *, move: bool) -> None:
        """[K], at least 0, sums to 1: how often the lanes of each task have a turn. `move` also places them
        again, so that all slots get equal work.
        """
        RoundRobin(len(self._copies)).set_shares(shares)  # raises ConfigError for values that are no shares
        if move:
            costs = zip(self._costs, shares.tolist(), strict=True)
            self._place([cost * max(share, LEAST_SHARE) for cost, share in costs])
        weights = shares[[share.task_index for share in self.lanes]]
        self._turns.set_shares(weights / weights.sum())
        self._shares = shares

    def take(self, without: Sequence[int]) -> int:
        """The lane that has the next turn."""
        return self._turns.take(without)

    def next_of(self, slot: int, without: Sequence[int], started: Sequence[int]) -> int | None:
        """The lane that has the next turn in a slot, where slots advance independently; None where it
        must wait for others: with shares, no lane runs far ahead of another in one of the `started` slots.
        """
        coming = self._coming[slot]
        if self._shares is None and not coming:
            coming.extend(self.of(slot))
        elif self._shares is not None:
            out = {*without, *(lane for lane, home in enumerate(self.home) if home not in started)}
            while not coming and len(out) < len(self) and sum(map(len, self._coming)) < AHEAD * len(self):
                lane = self.take(list(out))
                self._coming[self.home[lane]].append(lane)
        while coming and coming[0] in without:
            coming.popleft()
        return coming.popleft() if coming else None

    def put_back(self, lane: int) -> None:
        """Returns the turn of a lane that `next_of` gave."""
        self._coming[self.home[lane]].appendleft(lane)

    def reassign(self, slot: int, started: Sequence[int]) -> None:
        """Moves the lanes of a slot to the `started` slots, until `move_back`."""
        for lane in self.of(slot):
            self.home[lane] = min(started, key=lambda other: len(self.of(other)))
        self._coming[slot].clear()

    def away(self, started: Sequence[int]) -> list[int]:
        """Lanes that were moved from one of the `started` slots."""
        return [lane for lane, slot in enumerate(self._placed) if slot != self.home[lane] and slot in started]

    def move_back(self, lane: int) -> None:
        """Assigns a lane to the slot from which it was moved."""
        coming = self._coming[self.home[lane]]
        while lane in coming:
            coming.remove(lane)
        self.home[lane] = self._placed[lane]

    def state_dict(self) -> dict[str, Any]:
        """Lanes, their slots ("home") and turns."""
        lanes, turns = [asdict(share) for share in self.lanes], self._turns.state_dict()
        return {"lanes": lanes, "home": list(self.home), "slots": self._slots, "turns": turns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`; over another number of slots than there was, lanes are spread evenly."""
        self.lanes = [LaneAssignment(**share) for share in state["lanes"]]
        same = state["slots"] == self._slots
        self.home = list(state["home"]) if same else [k % self._slots for k in range(len(self.lanes))]
        self._placed = list(self.home)
        self._turns = RoundRobin(len(self.lanes))
        self._turns.load_state_dict(state["turns"])

    def _place(self, costs: Sequence[float]) -> None:
        placed = balance(self._copies, self._slots, costs)
        home = {share: slot for slot, shares in enumerate(placed) for share in shares}
        self.lanes = sorted(home, key=lambda share: (share.task_index, share.first_copy))
        self.home = [home[share] for share in self.lanes]
        self._placed = list(self.home)
        self._turns = RoundRobin(len(self.lanes))
        self._coming: list[deque[int]] = [deque() for _ in range(self._slots)]


def measure(backend: Backend, count: int) -> list[float]:
    """Seconds of one decision of one copy of each of `count` tasks, [K], measured by the workers.

    A task that fails, or whose worker dies, gets the median of the others: its lane meets the same fault,
    and there it is counted.
    """
    costs: dict[int, float] = {}
    for k, outcome in enumerate(call_all(backend, [(None, Measure(k)) for k in range(count)])):
        if isinstance(outcome, Finished) and isinstance(outcome.value, float):
            costs[k] = outcome.value
        elif isinstance(outcome, Finished) and not isinstance(outcome.error, EnvironmentFault):
            assert outcome.error is not None, "a measurement must return a number or an error"
            raise outcome.error
    usual = median(costs.values()) if costs else UNKNOWN_SECONDS
    return [costs.get(k, usual) for k in range(count)]


def balance(
    copies: Sequence[int], actors: int, step_seconds: Sequence[float] | None = None
) -> list[list[LaneAssignment]]:
    """Lanes of each actor, so that all actors need about equal time for one step of everything.

    `copies` [K] environments per task; `step_seconds` [K] is the measured cost of one decision of one
    copy, which differs tenfold between simulators; None counts copies. A lane that costs more than an
    actor's fair share is split by copies. Then the dearest piece goes to the least loaded actor, which
    keeps the largest load within 4/3 of the best possible (Graham 1969, theorem 2).
    """
    cost = [1.0] * len(copies) if step_seconds is None else list(step_seconds)
    if len(cost) != len(copies) or min(cost) <= 0 or min(copies) < 1 or actors < 1:
        raise ConfigError(
            "lanes need at least one copy per task, one positive cost per task and one actor; "
            f"got copies={list(copies)}, step_seconds={cost}, actors={actors}"
        )
    fair = sum(c * n for c, n in zip(cost, copies, strict=True)) / actors
    pieces: list[tuple[float, LaneAssignment]] = []
    for k, count in enumerate(copies):
        parts = min(count, max(1, ceil(cost[k] * count / fair - 1e-9)))
        edges = [count * part // parts for part in range(parts + 1)]
        for first, last in pairwise(edges):
            pieces.append((cost[k] * (last - first), LaneAssignment(k, last - first, first, count)))
    loads = [0.0] * actors
    shares: list[list[LaneAssignment]] = [[] for _ in range(actors)]
    for weight, piece in sorted(pieces, key=lambda p: (-p[0], p[1].task_index, p[1].first_copy)):
        lightest = loads.index(min(loads))
        loads[lightest] += weight
        shares[lightest].append(piece)
    return shares
