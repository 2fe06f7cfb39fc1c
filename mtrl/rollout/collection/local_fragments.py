"""Continuous collection: open lanes, fragment after fragment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, UnsupportedError
from mtrl.structured import POSITIVE, at_least, check
from mtrl.tasks import TaskSet

from ..fragment import Fragment
from ..policy import Acting, Policy, PolicySnapshot, Version
from ..runtime import FaultHandler, RuntimeConfig
from ..workers.worker import LaneAssignment, RolloutWorker
from .lane_supervisor import LaneSupervisor
from .round_robin import RoundRobin


@dataclass(frozen=True)
class CollectionConfig:
    """How lanes are stepped."""

    copies: int = 4
    """Environments of every task, at least 1."""
    steps: int = 64
    """Decisions of each copy per fragment, at least 1; 0.2 to 2 seconds of stepping is a good size."""
    explore: bool = True
    """Training noise on."""
    plan: bool = True
    """Whether a policy that can plan does so; otherwise it acts by its prior."""
    stagger: bool = True
    """Cut the first episode of every copy short, each elsewhere, so that copies that begin together do
    not reset together ever after; a Meta-World reset takes as long as 35 steps."""
    queue_megabytes: float = 256.0
    """Fragments under way or waiting for the learner where they come by arrival, as on Ray, in MB, above 0;
    beyond that workers pause."""

    def __post_init__(self) -> None:
        check(self, "collection", copies=at_least(1), steps=at_least(1), queue_megabytes=POSITIVE)

    @property
    def acting(self) -> Acting:
        """How policies decide while they collect."""
        return Acting(self.explore, self.plan)


class Fragments(Protocol):
    """An endless source of fragments from every task that is not quarantined."""

    quarantined: dict[int, str]
    """Task index -> the fault that took the task out, in one line."""

    def publish(self, snapshot: PolicySnapshot) -> Version:
        """New weights; fragments begun from now on use them, and say so in `policy_version`."""

    def stream(self) -> Iterator[Fragment]:
        """Fragments without end, or until every task is quarantined. Fragments of one lane come in
        order; may be left and called again, and goes on where it was.
        """

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], sums to 1: tasks are stepped in these proportions from the next fragment on."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next fragment depends on, but for the policy's weights.

        Raises UnsupportedError where lanes cannot be rebuilt exactly, as on a backend without starts.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a source of the same tasks and settings; called before `stream`.

        Raises UnsupportedError for the state of another kind of source: lanes start with new episodes then.
        """

    def close(self) -> None:
        """Frees workers and simulators."""


def fragment_bytes(tasks: TaskSet, share: LaneAssignment, steps: int) -> int:
    """Size of the arrays of one fragment of a lane, but for its few final observations and the extras of the
    policy that acts.
    """
    layout = tasks.layout
    observation = sum(
        int(np.prod(layout.bucket_shape(b))) * layout.bucket_dtype(b).itemsize
        for b in tasks[share.task_index].observation.buckets
    )
    # discrete index, reward, three flags; start and episode
    decision = 4 * layout.continuous_size + 8 + 4 + 3
    return share.copies * ((steps + 1) * (observation + 16) + steps * decision)


class LocalFragments:
    """Continuous collection in this process: lanes in task order, round after round, until shares are set.
    Deterministic.
    """

    def __init__(
        self,
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
    ) -> None:
        """Opens no lane before its first fragment is asked for."""
        self._collection = collection
        self._acting: Policy | PolicySnapshot = snapshot
        self._incarnation = 0
        self._worker = RolloutWorker(tasks, config.backends)
        self._supervisor = LaneSupervisor(seed, config.attempts, on_fault)
        self.quarantined = self._supervisor.quarantined
        self._shares = [LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))]
        self._open: set[LaneAssignment] = set()
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
        """As of Fragments."""
        self._turns.set_shares(shares)

    def stream(self) -> Iterator[Fragment]:
        """Fragments of all lanes in turn, or in proportion to their tasks' shares."""
        while len(self.quarantined) < len(self._shares):
            fragment = self._collect(self._shares[self._turns.take(list(self.quarantined))])
            if fragment is not None:
                yield fragment

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def state_dict(self) -> dict[str, Any]:
        """Start and actions so far of every open lane, its random streams, and whose turn it is."""
        return {
            **self._turns.state_dict(),
            "supervisor": self._supervisor.state_dict(),
            "open": [share.task_index for share in self._shares if share in self._open],
            "lanes": self._worker.lanes_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuilds the lanes by their starts and actions; `publish` or `use` says what acts then."""
        if "deal" in state:
            raise UnsupportedError("lanes of worker processes or actors cannot be rebuilt in this process")
        self._turns.load_state_dict(state)
        self._supervisor.load_state_dict(state["supervisor"])
        self._open = {self._shares[k] for k in state["open"]}
        for share in sorted(self._open, key=lambda share: share.task_index):
            seed = self._supervisor.reopening_seed(share)
            self._worker.open([share], self._acting, seed, self._collection.stagger)
        self._worker.load_lanes_state(state["lanes"])

    def _collect(self, share: LaneAssignment) -> Fragment | None:
        """The lane's next fragment, or None when its task is in quarantine."""
        while share.task_index not in self.quarantined:
            try:
                if share not in self._open:
                    seed = self._supervisor.opening_seed(share)
                    self._worker.open([share], self._acting, seed, self._collection.stagger)
                    self._open.add(share)
                steps, acting = self._collection.steps, self._collection.acting
                fragment = self._worker.collect(share, steps, self._acting, acting, self._incarnation)
                return self._supervisor.delivered(share, fragment)
            except EnvironmentFault as fault:
                self._open.discard(share)
                self._supervisor.failed(share, fault)
        return None
