"""The crew: rollout actors that are watched, timed and replaced.

Calls to one actor run one after another in the order given, so only the first call of each actor can
be blamed for a death or a hang, and only its clock runs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

from mtrl.errors import ResourceError
from mtrl.tasks import TaskSet

from .actor import ActorFacts, Reply, RolloutActor
from .cluster import actor_environment

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

IN_FLIGHT = 2
"""Calls per actor: one that runs, and one that waits so that the actor never does."""
START_SECONDS = 180.0
"""Longest time without any actor that is up."""
START_ATTEMPTS = 3
"""Times an actor may die before it is up; then its place stays empty."""

LOSSES = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, NodeDiedError)
"""What a lost process or node looks like, whichever part of Ray notices first."""
START_FAILURES = (*LOSSES, RuntimeEnvSetupError, ActorUnschedulableError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A call came back."""

    place: int
    key: int
    reply: Reply[Any]


@dataclass(frozen=True)
class Lost:
    """An actor died or hung and is being replaced; its calls are the caller's again."""

    place: int
    running: int | None
    """Key of the call that ran."""
    waiting: tuple[int, ...]
    """Keys of the calls behind it."""
    hung: bool
    reason: str


@dataclass(frozen=True)
class Ready:
    """An actor came up, for the first time or as a replacement."""

    place: int
    facts: ActorFacts


Event = Finished | Lost | Ready


@dataclass
class _Place:
    """One actor of the crew, whichever process fills it at the moment."""

    index: int
    actor: ActorHandle | None = None
    starting: ObjectRef | None = None
    """Unanswered first call; no work is given before it is answered."""
    failures: int = 0
    facts: ActorFacts | None = None
    calls: deque[tuple[int, ObjectRef]] = field(default_factory=deque)
    clock: float = 0.0
    """When the first call began to run, by time.monotonic."""


class Crew:
    """A fixed number of places, each filled by an actor; a lost actor is replaced on any node."""

    def __init__(
        self,
        tasks: TaskSet,
        count: int,
        timeout_seconds: float,
        backends: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the actors and returns at once; `wait` tells when each is up."""
        self.replaced = 0
        """Actors lost so far."""
        self._tasks, self._backends = ray.put(tasks), dict(backends or {})
        self._timeout = timeout_seconds
        self._last_up = time.monotonic()
        self._last_failure = "none came up"
        self._actor = ray.remote(RolloutActor).options(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env=actor_environment(),
        )
        self._places = [_Place(index) for index in range(count)]
        for place in self._places:
            self._fill(place)

    def __len__(self) -> int:
        return len(self._places)

    def facts(self) -> list[ActorFacts]:
        """Process and node of every actor that is up."""
        return [place.facts for place in self._places if place.facts is not None]

    def is_up(self, index: int) -> bool:
        """Whether the actor at that place takes calls."""
        return self._places[index].facts is not None

    def load(self, index: int) -> int:
        """Calls in flight at that place."""
        return len(self._places[index].calls)

    def idle_places(self, in_flight: int) -> Iterator[int]:
        """Places that are up and have fewer than `in_flight` calls, the least busy first."""
        up = [place for place in self._places if place.facts is not None and len(place.calls) < in_flight]
        for place in sorted(up, key=lambda place: len(place.calls)):
            yield place.index

    def submit(self, index: int, key: int, method: str, *arguments: object) -> None:
        """Gives a call to an actor that is up; `key` comes back with the outcome."""
        place = self._places[index]
        assert place.actor is not None and place.facts is not None, "an actor that is not up takes no calls"
        if not place.calls:
            place.clock = time.monotonic()
        place.calls.append((key, getattr(place.actor, method).remote(*arguments)))

    def wait(self) -> list[Event]:
        """Blocks until something happened. A bug in an actor raises, with the actor's traceback."""
        while True:
            watched = {place.calls[0][1] if place.calls else place.starting: place for place in self._places}
            references = [reference for reference in watched if reference is not None]
            if not references:
                self._nobody()
            done, _ = ray.wait(references, num_returns=1, timeout=self._patience())
            events = [event for ref in done if (event := self._settle(watched[ref], ref)) is not None]
            events.extend(self._hung())
            if events:
                return events
            if any(place.facts for place in self._places):
                self._last_up = time.monotonic()
            elif time.monotonic() - self._last_up > START_SECONDS:
                self._nobody()

    def abandon(self) -> None:
        """Replaces every actor that still has calls, so that nothing old runs on."""
        for place in self._places:
            if place.calls:
                self._empty(place)
                self._fill(place)

    def close(self) -> None:
        """Ends every actor."""
        for place in self._places:
            self._empty(place)

    def _fill(self, place: _Place) -> None:
        actor = cast("ActorHandle", self._actor.remote(self._tasks, self._backends))
        place.actor, place.starting = actor, actor.facts.remote()

    def _empty(self, place: _Place) -> None:
        if place.actor is not None:
            ray.kill(place.actor)
        place.actor = place.starting = place.facts = None
        place.calls.clear()

    def _settle(self, place: _Place, reference: ObjectRef) -> Event | None:
        if reference == place.starting:
            return self._started(place, reference)
        try:
            reply = ray.get(reference)
        except RayTaskError:
            raise  # a bug: the traceback counts, even when its cause looks like a lost actor
        except LOSSES as error:
            return self._lose(place, f"its process is gone ({type(error).__name__})", hung=False)
        key, _ = place.calls.popleft()
        place.clock = time.monotonic()
        return Finished(place.index, key, reply)

    def _started(self, place: _Place, reference: ObjectRef) -> Event | None:
        try:
            facts: ActorFacts = ray.get(reference)
        except RayTaskError:
            raise
        except START_FAILURES as error:
            self._last_failure = str(error)
            place.failures += 1
            self._empty(place)
            if place.failures < START_ATTEMPTS:
                self._fill(place)
            return None
        place.facts, place.starting, place.failures = facts, None, 0
        return Ready(place.index, facts)

    def _lose(self, place: _Place, reason: str, *, hung: bool) -> Lost:
        self.replaced += 1
        logger.warning("rollout actor %d is replaced: %s", place.index, reason)
        keys = [key for key, _ in place.calls]
        self._empty(place)
        self._fill(place)
        return Lost(place.index, keys[0] if keys else None, tuple(keys[1:]), hung, reason)

    def _hung(self) -> list[Lost]:
        now = time.monotonic()
        late = [place for place in self._places if place.calls and now - place.clock > self._timeout]
        reason = f"no answer within {self._timeout:g} s (runtime.job_timeout_seconds)"
        return [self._lose(place, reason, hung=True) for place in late]

    def _patience(self) -> float:
        """Seconds until the next deadline, at most one, so that Ctrl-C is answered."""
        now = time.monotonic()
        left = [place.clock + self._timeout - now for place in self._places if place.calls]
        return min([1.0, *(max(0.01, seconds) for seconds in left)])

    def _nobody(self) -> None:
        raise ResourceError(f"no rollout actor could be started; the last one said:\n{self._last_failure}")
