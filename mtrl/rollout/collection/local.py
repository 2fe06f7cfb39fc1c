"""Fragments and whole episodes, collected in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, UnsupportedError
from mtrl.tasks import TaskSet

from ..fragment import Fragment
from ..job import EpisodeJob, JobResult
from ..policy import Policy, PolicySnapshot, Version
from ..runtime import CollectionConfig, FaultHandler, FaultLog, RuntimeConfig
from ..workers.worker import LaneAssignment, RolloutWorker
from .lane_supervisor import LaneSupervisor
from .round_robin import RoundRobin


class LocalRollouts:
    """Runs jobs one after another in this process."""

    def __init__(self, tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> None:
        """`on_fault` receives every environment fault; `FaultLog` unless given."""
        self.quarantined: dict[int, str] = {}
        self._worker = RolloutWorker(tasks, config.backends)
        self._attempts = config.attempts
        self._on_fault = on_fault or FaultLog()

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        """Yields results in job order; a task whose job fails `attempts` times is quarantined."""
        for job in jobs:
            if job.task_index in self.quarantined:
                continue
            result = self._try(job, snapshot)
            if result is not None:
                if on_result is not None:
                    on_result(result)
                yield result

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def _try(self, job: EpisodeJob, snapshot: PolicySnapshot) -> JobResult | None:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._worker.run(job, snapshot)
            except EnvironmentFault as fault:
                last = attempt == self._attempts
                if last:
                    self.quarantined[job.task_index] = fault.summary
                self._on_fault(fault, last)
        return None


class LocalFragments:
    """Continuous collection in this process: lanes in task order, round after round, until shares are set.
    Deterministic.
    """

    by_arrival = False

    def __init__(
        self,
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
    ) -> None:
        """Opens no lane before its first fragment."""
        self._collection = collection
        self._acting: Policy | PolicySnapshot = snapshot
        self._incarnation = 0
        self._worker = RolloutWorker(tasks, config.backends)
        self._supervisor = LaneSupervisor(seed, config.attempts, on_fault)
        self.quarantined = self._supervisor.quarantined
        self._assignments = [
            LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))
        ]
        self._turns = RoundRobin(len(tasks))

    def publish(self, snapshot: PolicySnapshot) -> Version:
        """New weights, used from the next fragment on."""
        self._acting = snapshot
        return Version(snapshot.incarnation, snapshot.version)

    def use(self, policy: Policy, incarnation: int = 0) -> None:
        """`publish`, without the copy: `policy` acts from the next fragment on. It may share the weights
        that are learned, which must not change while a fragment is being collected. `incarnation` is that
        of the learner.
        """
        self._acting, self._incarnation = policy, incarnation

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """Sets how often each task is stepped, as `Fragments.set_shares`."""
        self._turns.set_shares(shares)

    def stream(self) -> Iterator[Fragment]:
        """Fragments of all lanes in turn, or in proportion to their tasks' shares."""
        while len(self.quarantined) < len(self._assignments):
            fragment = self._collect(self._assignments[self._turns.take(list(self.quarantined))])
            if fragment is not None:
                yield fragment

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def state_dict(self) -> dict[str, Any]:
        """Start and actions so far of every open lane, its random streams, and which lane is next."""
        return {
            **self._turns.state_dict(),
            "supervisor": self._supervisor.state_dict(),
            "open": [
                assignment.task_index for assignment in self._assignments if self._worker.has(assignment)
            ],
            "lanes": self._worker.lanes_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuilds the lanes by their starts and actions; `publish` or `use` sets what acts then."""
        if "deal" in state:
            raise UnsupportedError("lanes of worker processes or actors cannot be rebuilt in this process")
        self._turns.load_state_dict(state)
        self._supervisor.load_state_dict(state["supervisor"])
        for k in state["open"]:
            self._open(self._assignments[k], self._supervisor.reopening_seed(self._assignments[k]))
        for lane in state["lanes"]:
            self._worker.load_lane_state(lane)

    def _collect(self, assignment: LaneAssignment) -> Fragment | None:
        """The lane's next fragment, or None when its task is in quarantine."""
        while assignment.task_index not in self.quarantined:
            try:
                if not self._worker.has(assignment):
                    self._open(assignment, self._supervisor.opening_seed(assignment))
                steps, acting = self._collection.steps, self._collection.acting
                fragment = self._worker.collect(assignment, steps, self._acting, acting, self._incarnation)
                return self._supervisor.delivered(assignment, fragment)
            except EnvironmentFault as fault:
                self._supervisor.failed(assignment, fault)
        return None

    def _open(self, assignment: LaneAssignment, seed: int) -> None:
        self._worker.open(assignment, self._acting, seed, self._collection.stagger)
