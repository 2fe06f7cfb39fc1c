"""Ray actors as slots, on any node of the cluster."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from contextlib import ExitStack
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from mtrl.rollout import KEPT, Backend, Call, Event, Lost, PolicySnapshot, RuntimeConfig, Version
from mtrl.tasks import TaskSet

from .actor import LEASE, ActorFacts, Reply, RolloutActor
from .cluster import actor_environment, await_processors, connect, disconnect
from .weights import WeightPublisher

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

LEASE_SECONDS = 5.0
"""Time without a sign of life after which an actor is replaced; doubled for a slot at each loss of this kind,
for a package that takes long to load may silence an actor too."""
LONGEST_LEASE_SECONDS = 80.0
RENEWAL_SECONDS = 0.5
"""Time between two questions for a sign of life."""
ARRIVAL_SECONDS = 0.5
"""Time for an answer that has reached this process, which stood still itself, to be seen."""
START_ATTEMPTS = 3
"""Times an actor may die before it is up; then its slot stays empty."""

LOSSES = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
"""Errors of a lost process or node, whichever part of Ray notices first."""
START_FAILURES = (*LOSSES, RuntimeEnvSetupError, ActorUnschedulableError)


class RayActors(Backend):
    """`mtrl.rollout.Backend` on Ray actors.

    A hang is its call's fault; a death proves nothing, for a node may fail, but the actor that replaces a
    dead one has a `GuardedExecutor`, which does. Weights are sent once per publication, never with a call.

    Each actor holds a lease, which it renews while calls run. One that is frozen, or whose node is, loses it:
    its calls go to others, and when it wakes up it ends itself; what it still sends has no reader.
    """

    replacement_seconds = 2.0

    def __init__(self, tasks: TaskSet, config: RuntimeConfig) -> None:
        """Joins or starts Ray. Raises ConfigError when no cluster answers at `config.address`."""
        super().__init__(config.job_timeout_seconds)
        self._closing = ExitStack()
        self.capacity = connect(config)
        """What the cluster has."""
        self._closing.callback(disconnect)
        self._tasks, self._backends = tasks, dict(config.backends)
        self._actors: dict[int, ActorHandle] = {}
        self._starting: dict[int, ObjectRef] = {}
        """Unanswered first calls; work follows once they are answered."""
        self._results: defaultdict[int, deque[ObjectRef]] = defaultdict(deque)
        self._sent: dict[int, int] = {}
        """Publication that each actor has been given."""
        self._failures: dict[int, int] = {}
        self._guarded: set[int] = set()
        """Slots whose next actors tell crashes from kills."""
        self._facts: dict[int, ActorFacts] = {}
        self._leases: defaultdict[int, float] = defaultdict(lambda: LEASE_SECONDS)
        """Seconds of each slot's lease."""
        self._renewals: dict[int, tuple[ObjectRef, float]] = {}
        """The sign of life that each actor owes, and when it was asked for."""
        self._node = ray.get_runtime_context().get_node_id()

    def start(self, slots: int) -> None:
        """As of Backend; raises ResourceError when other work holds the processors."""
        await_processors(slots)
        self.weights = WeightPublisher()
        self._closing.callback(self.weights.close)
        self._shared_tasks = ray.put(self._tasks)
        # Ray wants the groups there, and takes everything else here
        self._actor = cast("Any", ray.remote)(concurrency_groups={LEASE: 1})(RolloutActor).options(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env=actor_environment(),
        )
        for slot in range(slots):
            self._closing.callback(self._stop, slot)
        super().start(slots)

    def facts(self) -> list[ActorFacts]:
        """Process, node and loaded modules of every actor that is up."""
        return [facts for _, facts in sorted(self._facts.items())]

    def publish(self, policy: PolicySnapshot, keep: int = KEPT) -> Version:
        """As of Backend: the weight store has it."""
        self.weights.publish(policy, keep)
        return Version(policy.incarnation, policy.version)

    def close(self) -> None:
        """Ends actors and weight store, and a private cluster with them. May be called twice."""
        self._forget_calls()
        self._closing.close()

    def _start_worker(self, slot: int) -> None:
        guard = self._timeout if slot in self._guarded else None
        actor = cast(
            "ActorHandle",
            # the driver, which can give the slot more time, decides first
            self._actor.remote(self._shared_tasks, self._backends, 2 * self._leases[slot], guard),
        )
        self._actors[slot], self._starting[slot] = actor, actor.facts.remote()

    def _stop(self, slot: int) -> None:
        if slot in self._actors:
            ray.kill(self._actors.pop(slot))
        self._starting.pop(slot, None)
        self._facts.pop(slot, None)
        self._sent.pop(slot, None)
        self._renewals.pop(slot, None)
        self._results[slot] = deque()

    def _send(self, slot: int, call: Call) -> None:
        perform = cast("Any", self._actors[slot]).perform
        number, reference = self.weights.newest
        known = self._sent.get(slot) == number
        self._sent[slot] = number
        publication = number, [] if known else reference
        self._results[slot].append(perform.remote(call, publication, self.weights.store))

    def _receive(self, seconds: float) -> list[Event]:
        watched: dict[ObjectRef, int] = {reference: slot for slot, reference in self._starting.items()}
        watched |= {results[0]: slot for slot, results in self._results.items() if results}
        if not watched and not any(slot.started for slot in self.slots):
            raise self._none_started()
        if not watched:
            time.sleep(seconds)
            return self._renew_leases()
        done: list[ObjectRef]
        done, others = ray.wait(list(watched), num_returns=1, timeout=seconds)
        if done and others:
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        found = [event for reference in done if (event := self._settle(watched[reference], reference))]
        return found + self._renew_leases()

    def _renew_leases(self) -> list[Event]:
        """Asks the actors for signs of life; replaces those that have given none for the time of a lease."""
        lost: list[Event] = []
        for slot, (reference, asked) in list(self._renewals.items()):
            waited = time.monotonic() - asked
            if waited < RENEWAL_SECONDS:
                continue
            late = waited > self._leases[slot]
            if ray.wait([reference], timeout=ARRIVAL_SECONDS if late else 0)[0]:
                try:
                    ray.get(reference)
                except LOSSES as error:
                    lost.append(self._gone(slot, error))
                else:
                    self._ask(slot)
            elif late:
                reason = f"it gave no sign of life for {waited:.0f} s, as if frozen or cut off with its node"
                self._leases[slot] = min(2 * self._leases[slot], LONGEST_LEASE_SECONDS)
                lost.append(self._lose(slot, reason, is_cause=False, moves=True))
        return lost

    def _gone(self, slot: int, error: Exception) -> Lost:
        if self.slots[slot].calls:
            self._guarded.add(slot)
        return self._lose(slot, f"its process is gone ({type(error).__name__})", is_cause=False)

    def _ask(self, slot: int) -> None:
        renew = cast("Any", self._actors[slot]).renew
        self._renewals[slot] = renew.remote(self._facts[slot].node != self._node), time.monotonic()

    def _settle(self, slot: int, reference: ObjectRef) -> Event | None:
        if self._starting.get(slot) == reference:
            return self._settle_start(slot, reference)
        try:
            reply: Reply = ray.get(reference)
        except RayTaskError as bug:
            # the traceback counts, even when its cause looks like a lost actor
            self._results[slot].popleft()
            return self._finished(slot, None, bug)
        except LOSSES as error:
            return self._gone(slot, error)
        self._results[slot].popleft()
        # arrays of the object store are read-only, and what is kept of them keeps their blocks there
        return self._finished(
            slot, deepcopy(reply.value), None if reply.error is None else reply.error.error()
        )

    def _settle_start(self, slot: int, reference: ObjectRef) -> Event | None:
        try:
            facts: ActorFacts = ray.get(reference)
        except RayTaskError:
            raise
        except START_FAILURES as error:
            self._last_failure = str(error)
            self._failures[slot] = self._failures.get(slot, 0) + 1
            self._stop(slot)
            if self._failures[slot] < START_ATTEMPTS:
                self._start_worker(slot)
            return None
        del self._starting[slot]
        self._facts[slot], self._failures[slot] = facts, 0
        self._ask(slot)
        return self._started(slot)
