"""Continuous collection: open lanes, fragment after fragment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, OutOfRangeError
from mtrl.tasks import TaskSet

from .backends import require_backends
from .fragment import Fragment
from .policy import Acting, Extra, Policy, PolicySnapshot
from .runtime import FaultHandler, FaultLog, RuntimeConfig
from .turns import Turns
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
    plan: bool = True
    """Whether a policy that can plan does so; otherwise it acts by its prior."""
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

    @property
    def acting(self) -> Acting:
        """How policies decide while they collect."""
        return Acting(self.explore, self.plan)


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


@runtime_checkable
class ResumableFragments(Fragments, Protocol):
    """A source whose lanes can be rebuilt exactly where they were."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next fragment depends on, but for the policy's weights.

        Raises UnsupportedError where a task's backend cannot honour starts.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a source of the same tasks and settings; called before `stream`."""


@runtime_checkable
class SharedFragments(Fragments, Protocol):
    """A source that can step some tasks more than others."""

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], sums to 1: tasks are stepped in these proportions from the next fragment on."""


@runtime_checkable
class InProcessFragments(Fragments, Protocol):
    """A source in the learner's own process, to which a policy need not travel."""

    def use(self, policy: Policy) -> None:
        """`publish`, without the copy: `policy` acts from the next fragment on. It may share the weights
        that are learned, which must not change while a fragment is being collected.
        """


def fragment_bytes(tasks: TaskSet, share: LaneAssignment, steps: int, extras: Sequence[Extra] = ()) -> int:
    """Size of the arrays of one fragment of a lane, but for its few final observations; `extras` are those
    of the policy that acts.
    """
    layout = tasks.layout
    observation = sum(
        int(np.prod(layout.bucket_shape(b))) * layout.bucket_dtype(b).itemsize
        for b in tasks[share.task_index].observation.buckets
    )
    extra = sum(int(np.prod(extra.shape)) * np.dtype(extra.dtype).itemsize for extra in extras)
    # discrete index, reward, three flags; start and episode
    decision = 4 * layout.continuous_size + 8 + 4 + 3 + extra
    return share.copies * ((steps + 1) * (observation + 16) + steps * decision)


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
        """Books a fragment; episode ids go on where the lane's former openings stopped."""
        self._faults[share] = 0
        fragment.epoch = self._openings[share] - 1
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
        """Opens no lane before the first fragment of it is wanted."""
        self._collection = collection
        self._acting: Policy | PolicySnapshot = snapshot
        require_backends(tasks, config.backends)
        self._worker = RolloutWorker(tasks, config.backends)
        self._books = LaneBooks(seed, config.attempts, on_fault)
        self.quarantined = self._books.quarantined
        self._shares = [LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))]
        self._open: set[LaneAssignment] = set()
        self._turns = Turns(len(tasks))

    def publish(self, snapshot: PolicySnapshot) -> None:
        """New weights, used from the next fragment on."""
        self._acting = snapshot

    def use(self, policy: Policy) -> None:
        """As of InProcessFragments."""
        self._acting = policy

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """As of SharedFragments."""
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
            "books": self._books.state_dict(),
            "open": [share.task_index for share in self._shares if share in self._open],
            "lanes": self._worker.lanes_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuilds the lanes by their starts and actions; `publish` or `use` says what acts then."""
        self._turns.load_state_dict(state)
        self._books.load_state_dict(state["books"])
        self._open = {self._shares[k] for k in state["open"]}
        for share in sorted(self._open, key=lambda share: share.task_index):
            seed = self._books.reopening_seed(share)
            self._worker.open([share], self._acting, seed, self._collection.stagger)
        self._worker.load_lanes_state(state["lanes"])

    def _collect(self, share: LaneAssignment) -> Fragment | None:
        """The lane's next fragment, or None when its task is in quarantine."""
        while share.task_index not in self.quarantined:
            try:
                if share not in self._open:
                    seed = self._books.opening_seed(share)
                    self._worker.open([share], self._acting, seed, self._collection.stagger)
                    self._open.add(share)
                settings = self._collection
                fragment = self._worker.collect(share, settings.steps, self._acting, settings.acting)
                return self._books.delivered(share, fragment)
            except EnvironmentFault as fault:
                self._open.discard(share)
                self._books.failed(share, fault)
        return None
