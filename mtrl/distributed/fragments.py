"""Continuous collection on Ray."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from mtrl.errors import EnvironmentFault
from mtrl.rollout import (
    CollectionConfig,
    FaultHandler,
    Fragment,
    LaneAssignment,
    LaneBooks,
    PolicySnapshot,
    RuntimeConfig,
    balance,
    fragment_bytes,
    require_backends,
)
from mtrl.tasks import TaskSet

from .actor import ActorFacts
from .cluster import await_processors, connect, disconnect
from .crew import IN_FLIGHT, Crew, Event, Finished, Lost, Ready
from .measuring import measure
from .owned import owned
from .resources import preflight, preflight_lanes
from .rollouts import DEATHS
from .weights import WeightPublisher

REPLACEMENT_SECONDS = 15.0
"""How long the lanes of a lost actor wait for its replacement before the others take them over."""


class RayFragments:
    """`mtrl.rollout.Fragments` on Ray actors.

    Lanes are dealt to actors by the cost of a step and stay there. An actor that dies is replaced and
    its lanes begin afresh on the replacement; an environment that fails costs its own lane only.
    Fragments arrive in the order in which they are finished.
    """

    def __init__(
        self,
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
        step_seconds: Sequence[float] | None = None,
    ) -> None:
        """Joins or starts Ray, starts the actors and deals the lanes by cost.

        `step_seconds` [K] is a decision's cost per copy; the actors measure it where it is not given.

        Raises ResourceError, before it waits for anything, when processors or memory do not suffice.
        """
        require_backends(tasks, config.backends)
        self._tasks, self._collection = tasks, collection
        self._books = LaneBooks(seed, config.attempts, on_fault)
        self.quarantined = self._books.quarantined
        self._closing = ExitStack()
        torch = snapshot.kind not in ("expert", "random")
        if not config.address:
            preflight(tasks, config)
        with ExitStack() as undo:
            has = connect(config)
            undo.callback(disconnect)
            actors = config.actors or has.processors
            preflight_lanes(
                tasks,
                config,
                [LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))],
                processor_count=has.processors,
                available_megabytes=has.megabytes,
                torch=torch,
            )
            await_processors(actors)
            self._weights = WeightPublisher()
            undo.callback(self._weights.close)
            self._weights.publish(snapshot)
            self._crew = Crew(tasks, actors, config.job_timeout_seconds, config.backends)
            undo.callback(self._crew.close)
            if step_seconds is None and actors > 1 and len(tasks) > 1:
                step_seconds = measure(self._crew, len(tasks))
            dealt = balance([collection.copies] * len(tasks), actors, step_seconds)
            self._closing = undo.pop_all()
        self._lanes = [share for shares in dealt for share in shares]
        self._turns = [deque(self._lanes.index(share) for share in shares) for shares in dealt]
        self._open: set[int] = set()
        self._bytes = [fragment_bytes(tasks, share, collection.steps) for share in self._lanes]
        self._in_flight = 0
        self._costs: dict[int, float] = {}
        self._deaths: dict[int, int] = {}
        self._down_since: dict[int, float] = {}
        self._events: deque[Event] = deque()

    @property
    def replaced(self) -> int:
        """Actors that died or hung and were replaced so far."""
        return self._crew.replaced

    @property
    def step_seconds(self) -> list[float]:
        """[K], measured cost of one decision of one copy, NaN where nothing has been measured yet."""
        return [self._costs.get(k, float("nan")) for k in range(len(self._tasks))]

    def facts(self) -> list[ActorFacts]:
        """Process, node and loaded modules of every actor that is up."""
        return self._crew.facts()

    def publish(self, snapshot: PolicySnapshot) -> None:
        """New weights; every fragment that an actor begins from now on uses them."""
        self._weights.publish(snapshot)

    def stream(self) -> Iterator[Fragment]:
        """Fragments as they are finished; actors run ahead by at most two each, and pause beyond
        `queue_megabytes`. Leaving the iterator lets those be finished; the next one begins with them.
        """
        while len(self.quarantined) < len(self._tasks):
            self._assign()
            self._events.extend(self._crew.wait())
            while self._events:
                fragment = self._handle(self._events.popleft())
                if fragment is not None:
                    yield fragment

    def close(self) -> None:
        """Ends actors and weight store, and a private cluster with them. May be called twice."""
        self._closing.close()

    def _assign(self) -> None:
        """Gives every actor its next lanes, as far as the queue's bytes allow; one fragment always."""
        self._rehouse()
        limit = self._collection.queue_megabytes * 2**20
        for depth in range(1, IN_FLIGHT + 1):
            for place in self._crew.idle_places(depth):
                lane = self._next_lane(place)
                if lane is None:
                    continue
                if self._in_flight and self._in_flight + self._bytes[lane] > limit:
                    return
                self._submit(place, lane)

    def _next_lane(self, place: int) -> int | None:
        """Lanes of an actor take turns; those of quarantined tasks are forgotten."""
        turns = self._turns[place]
        while turns and self._lanes[turns[0]].task_index in self.quarantined:
            turns.popleft()
        return turns[0] if turns else None

    def _submit(self, place: int, lane: int) -> None:
        self._turns[place].rotate(-1)
        share = self._lanes[lane]
        opening = None if lane in self._open else self._books.opening_seed(share)
        self._open.add(lane)
        self._in_flight += self._bytes[lane]
        settings, store = self._collection, self._weights.store
        self._crew.submit(
            place, lane, "collect", share, settings.steps, settings.acting, opening, settings.stagger, store
        )

    def _handle(self, event: Event) -> Fragment | None:
        if isinstance(event, Finished):
            return self._finished(event)
        if isinstance(event, Lost):
            self._lost(event)
        elif isinstance(event, Ready):
            self._down_since.pop(event.place, None)
        return None

    def _finished(self, event: Finished) -> Fragment | None:
        lane, reply, share = event.key, event.reply, self._lanes[event.key]
        self._in_flight -= self._bytes[lane]
        if reply.mistake is not None:
            raise reply.mistake.error()
        if reply.weights_lost:
            self._weights.restart()
            self._open.discard(lane)
        elif reply.fault is not None:
            self._open.discard(lane)
            if share.task_index not in self.quarantined:
                self._books.failed(share, reply.fault)
        elif reply.value is not None and share.task_index not in self.quarantined:
            self._deaths.pop(lane, None)
            self._costs[share.task_index] = reply.seconds / reply.value.steps
            return self._books.delivered(share, owned(reply.value))
        return None

    def _lost(self, event: Lost) -> None:
        self._down_since[event.place] = time.monotonic()
        self._open -= set(self._turns[event.place])
        keys = ([] if event.running is None else [event.running]) + list(event.waiting)
        self._in_flight -= sum(self._bytes[lane] for lane in keys)
        if event.running is None:
            return
        share = self._lanes[event.running]
        fault = EnvironmentFault(self._tasks[share.task_index].name, f"a fragment of {share}", event.reason)
        self._deaths[event.running] = self._deaths.get(event.running, 0) + 1
        if event.hung:
            self._books.failed(share, fault)
        elif self._deaths[event.running] >= DEATHS:
            self._books.quarantine(share, fault)

    def _rehouse(self) -> None:
        """Deals the lanes of an actor whose replacement finds no room to those that are up."""
        up = [place for place in range(len(self._crew)) if self._crew.is_up(place)]
        late = time.monotonic() - REPLACEMENT_SECONDS
        for place in [place for place, since in self._down_since.items() if since < late and up]:
            for lane in self._turns[place]:
                min((self._turns[other] for other in up), key=len).append(lane)
            self._turns[place].clear()
            del self._down_since[place]
