"""Continuous collection: open lanes, fragment after fragment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mtrl.errors import EnvironmentFault, OutOfRangeError
from mtrl.tasks import TaskSet

from .backends import require_backends
from .fragment import Fragment
from .policy import PolicySnapshot
from .runtime import FaultHandler, FaultLog, RuntimeConfig
from .worker import LaneAssignment, RolloutWorker

REOPENED_SEED = 1_000_003
"""Added to the seed each time a lane is opened again, so that it does not repeat its first episodes."""


@dataclass(frozen=True)
class CollectionConfig:
    """How lanes are stepped."""

    copies: int = 4
    """Environments of every task, at least 1."""
    steps: int = 64
    """Decisions of each copy per fragment, at least 1; 0.2 to 2 seconds of stepping is a good size."""
    explore: bool = True
    """Training noise on."""
    stagger: bool = True
    """Cut the first episode of every copy short, each elsewhere, so that copies that begin together do
    not reset together ever after; a Meta-World reset takes as long as 35 steps."""
    queue_megabytes: float = 256.0
    """Fragments that may wait for the learner on Ray, in MB, above 0; beyond that actors pause."""

    def __post_init__(self) -> None:
        for name in ("copies", "steps"):
            if getattr(self, name) < 1:
                raise OutOfRangeError(f"collection.{name}", getattr(self, name), "at least 1")
        if self.queue_megabytes <= 0:
            raise OutOfRangeError("collection.queue_megabytes", self.queue_megabytes, "above 0")


class Fragments(Protocol):
    """An endless source of fragments from every task that is not quarantined."""

    quarantined: dict[int, str]
    """Task index -> the fault that took the task out, in one line."""

    def publish(self, snapshot: PolicySnapshot) -> None:
        """New weights; fragments begun from now on use them, and say so in `policy_version`."""

    def stream(self) -> Iterator[Fragment]:
        """Fragments without end, or until every task is quarantined. Fragments of one lane come in
        order; may be left and called again, and goes on where it was.
        """

    def close(self) -> None:
        """Frees workers and simulators."""


def fragment_bytes(tasks: TaskSet, share: LaneAssignment, steps: int) -> int:
    """Size of the arrays of one fragment of a lane, but for its few final observations."""
    layout = tasks.layout
    observation = sum(
        int(np.prod(layout.bucket_shape(b))) * layout.bucket_dtype(b).itemsize
        for b in tasks[share.task_index].observation.buckets
    )
    scalars = 4 * layout.continuous_size + 8 + 4 + 4 + 3 + 8 + 8
    return share.copies * ((steps + 1) * observation + steps * scalars)


class LaneBooks:
    """Faults and openings of lanes; the local and the Ray runtime treat them alike.

    A lane that faults begins afresh. A task is quarantined after `attempts` faults of one of its lanes
    with no fragment between them.
    """

    def __init__(self, seed: int, attempts: int, on_fault: FaultHandler | None) -> None:
        """Nothing opened yet."""
        self.quarantined: dict[int, str] = {}
        self._seed, self._attempts, self._on_fault = seed, attempts, on_fault or FaultLog()
        self._openings: dict[LaneAssignment, int] = {}
        self._rounds: dict[LaneAssignment, int] = {}
        self._base: dict[LaneAssignment, int] = {}
        self._faults: dict[LaneAssignment, int] = {}

    def opening_seed(self, share: LaneAssignment) -> int:
        """Seed of the next opening of the lane; the first is the run's own."""
        opened = self._openings.get(share, 0)
        self._openings[share] = opened + 1
        self._base[share] = self._rounds.get(share, 0)
        return self._seed + REOPENED_SEED * opened

    def delivered(self, share: LaneAssignment, fragment: Fragment) -> Fragment:
        """Books a fragment; episode ids go on where the lane's former openings stopped."""
        self._faults[share] = 0
        fragment.episode_id += self._base[share] * share.total_copies
        self._rounds[share] = int(fragment.episode_id.max()) // share.total_copies + 1
        return fragment

    def failed(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Books a fault, quarantines when it is one too many, and tells the handler."""
        self._faults[share] = self._faults.get(share, 0) + 1
        if self._faults[share] >= self._attempts:
            self.quarantine(share, fault)
        else:
            self._on_fault(fault, False)

    def quarantine(self, share: LaneAssignment, fault: EnvironmentFault) -> None:
        """Takes the lane's task out for good and tells the handler."""
        self.quarantined[share.task_index] = fault.summary
        self._on_fault(fault, True)


class LocalFragments:
    """Continuous collection in this process: lanes in task order, round after round. Deterministic."""

    def __init__(
        self,
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
    ) -> None:
        """Opens no lane before the first fragment of it is wanted."""
        self._collection, self._snapshot = collection, snapshot
        require_backends(tasks, config.backends)
        self._worker = RolloutWorker(tasks, config.backends)
        self._books = LaneBooks(seed, config.attempts, on_fault)
        self.quarantined = self._books.quarantined
        self._shares = [LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))]
        self._open: set[LaneAssignment] = set()
        self._turn = 0

    def publish(self, snapshot: PolicySnapshot) -> None:
        """New weights, used from the next fragment on."""
        self._snapshot = snapshot

    def stream(self) -> Iterator[Fragment]:
        """Fragments of all lanes in turn."""
        while len(self.quarantined) < len(self._shares):
            share = self._shares[self._turn]
            self._turn = (self._turn + 1) % len(self._shares)
            fragment = self._collect(share)
            if fragment is not None:
                yield fragment

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def _collect(self, share: LaneAssignment) -> Fragment | None:
        """The lane's next fragment, or None when its task is in quarantine."""
        while share.task_index not in self.quarantined:
            try:
                if share not in self._open:
                    seed = self._books.opening_seed(share)
                    self._worker.open([share], self._snapshot, seed, self._collection.stagger)
                    self._open.add(share)
                settings = self._collection
                fragment = self._worker.collect(share, settings.steps, self._snapshot, settings.explore)
                return self._books.delivered(share, fragment)
            except EnvironmentFault as fault:
                self._open.discard(share)
                self._books.failed(share, fault)
        return None
