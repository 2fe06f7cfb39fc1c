"""The back end of a pool: slots for a fixed number of workers that are watched, timed and replaced.

A worker carries out its calls in the order given, so only its first call can be the cause of a death or a
hang, and only the first call's time is measured.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mtrl.errors import ResourceError

from ..policy import PolicySnapshot, Version
from .calls import Call, CallValue

logger = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Calls per slot: one that runs, and one that waits so that the worker never does."""
KEPT = 2
"""Publications kept: the newest, and the one that a worker may be fetching right now."""
START_SECONDS = 180.0
"""Longest time that a worker takes to start, loading its packages."""
MAX_KILLS = 10
"""Workers that a slot may lose in a row, with no call finished between them and none of them the cause."""


@dataclass(frozen=True)
class Finished:
    """A call has ended."""

    slot: int
    ticket: int
    value: CallValue = None
    error: Exception | None = None
    """Raised by the call, in place of a value."""


@dataclass(frozen=True)
class Lost:
    """A worker died or hung and is being replaced; its calls are returned to the caller."""

    slot: int
    running: int | None
    """Ticket of the call that ran."""
    waiting: tuple[int, ...]
    """Tickets of the calls behind it."""
    is_cause: bool
    """Whether the running call is surely the cause, which then counts against its task. A worker that was
    killed from outside, or whose node may have failed, proves nothing."""
    reason: str
    moves: bool = False
    """Whether the worker's lanes move to others at once, because its replacement may be long in coming."""


@dataclass(frozen=True)
class Ready:
    """A worker has started, for the first time or as a replacement."""

    slot: int
    epoch: int


Event = Finished | Lost | Ready


@dataclass
class Slot:
    """The state of one worker and its replacements."""

    epoch: int = 0
    """Workers before this one; answers of an older one are dropped."""
    started: bool = False
    """Whether the worker has started; only then it takes calls."""
    calls: deque[int] = field(default_factory=deque)
    """Tickets of the calls under way, in order."""
    kills: int = 0
    """Workers lost since a call finished without that call being the cause."""
    clock: float = 0.0
    """When the first call, or the start, began, by time.monotonic."""


class Backend(ABC):
    """Hosts the workers of a pool, processes or Ray actors, without regard to tasks and jobs.

    This class watches the slots; a back end adds the workers and how they are reached.
    """

    replacement_seconds = START_SECONDS
    """Seconds that lanes wait for the replacement of a lost worker before they move to others; they come
    back once it has started."""

    def __init__(self, timeout_seconds: float) -> None:
        """A call that takes longer counts as hung."""
        self.replaced = 0
        """Workers that died or hung so far."""
        self.slots: list[Slot] = []
        """The state of each slot; for reading."""
        self._timeout = timeout_seconds
        self._last_started = 0.0
        self._last_failure = "none started"

    def start(self, slots: int) -> None:
        """Starts that many workers and returns at once; `wait` reports when each has started."""
        self.slots = [Slot() for _ in range(slots)]
        for slot in range(slots):
            self._begin(slot)

    def replace(self, slot: int, why: str) -> int:
        """Ends the worker at once, drops its calls and starts another; returns the new epoch."""
        held = self.slots[slot]
        self._stop(slot)
        held.calls.clear()
        held.started = False
        held.epoch += 1
        self._last_failure = why
        self._begin(slot)
        return held.epoch

    def idle(self, in_flight: int) -> list[int]:
        """Slots with a started worker and fewer than `in_flight` calls, the least busy first."""
        free = [i for i, slot in enumerate(self.slots) if slot.started and len(slot.calls) < in_flight]
        return sorted(free, key=lambda i: len(self.slots[i].calls))

    def submit(self, slot: int, ticket: int, call: Call) -> None:
        """Gives a call to a slot whose worker has started; the outcome carries `ticket`."""
        held = self.slots[slot]
        assert held.started, "calls must be submitted to a slot whose worker has started"
        if not held.calls:
            held.clock = time.monotonic()
        held.calls.append(ticket)
        self._send(slot, call)

    def wait(self, seconds: float) -> list[Event]:
        """Blocks until something happened, at most `seconds`; raises ResourceError where no worker starts."""
        deadline = time.monotonic() + seconds
        while True:
            events = self._receive(self._seconds_to_deadline(deadline))
            # what has arrived comes first, so that no call is late whose answer waited here
            events += self._overdue()
            now = time.monotonic()
            if any(slot.started for slot in self.slots):
                self._last_started = now
            elif not events and now - self._last_started > START_SECONDS:
                raise self._none_started()
            if events or now >= deadline:
                return events

    @abstractmethod
    def publish(self, policy: PolicySnapshot, keep: int = KEPT) -> Version:
        """The policy of every call submitted from now on. Returns once it is safe from the loss of a worker;
        the last `keep` stay available to workers that are behind.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends every worker. May be called twice."""

    @abstractmethod
    def _start_worker(self, slot: int) -> None:
        """Starts a worker without waiting for it."""

    @abstractmethod
    def _stop(self, slot: int) -> None:
        """Ends the slot's worker at once."""

    @abstractmethod
    def _send(self, slot: int, call: Call) -> None:
        """Sends a call to the worker."""

    @abstractmethod
    def _receive(self, seconds: float) -> list[Event]:
        """Everything that has happened; waits for a first thing at most `seconds`."""

    def _forget_calls(self) -> None:
        """Drops the calls of all slots and marks their workers as not started."""
        for slot in self.slots:
            slot.calls.clear()
            slot.started = False

    def _begin(self, slot: int) -> None:
        self.slots[slot].clock = self._last_started = time.monotonic()
        self._start_worker(slot)

    def _started(self, slot: int) -> Ready:
        self.slots[slot].started = True
        return Ready(slot, self.slots[slot].epoch)

    def _finished(self, slot: int, value: CallValue, error: Exception | None = None) -> Finished:
        held = self.slots[slot]
        ticket = held.calls.popleft()
        held.clock, held.kills = time.monotonic(), 0
        return Finished(slot, ticket, value, error)

    def _lose(self, slot: int, reason: str, *, is_cause: bool, moves: bool = False) -> Lost:
        self.replaced += 1
        held = self.slots[slot]
        tickets = tuple(held.calls)
        logger.warning("worker %d is replaced: %s", slot, reason)
        held.kills += bool(tickets) and not is_cause
        if held.kills >= MAX_KILLS:
            raise ResourceError(
                f"{held.kills} workers in a row were lost before they finished anything; the last one: "
                f"{reason}. Where the system is short of memory (see its log), lower runtime.workers, "
                "runtime.actors or the copies of environments"
            )
        self.replace(slot, reason)
        return Lost(slot, tickets[0] if tickets else None, tickets[1:], is_cause, reason, moves)

    def _overdue(self) -> list[Event]:
        now = time.monotonic()
        late = [i for i, slot in enumerate(self.slots) if slot.calls and now - slot.clock > self._timeout]
        reason = f"no answer within {self._timeout:g} s (runtime.job_timeout_seconds)"
        return [self._lose(slot, reason, is_cause=True) for slot in late]

    def _seconds_to_deadline(self, deadline: float) -> float:
        """Seconds until the next deadline, at most one, so that Ctrl-C is answered."""
        now = time.monotonic()
        left = [slot.clock + self._timeout - now for slot in self.slots if slot.calls]
        return max(0.0, min([1.0, deadline - now, *(max(0.01, seconds) for seconds in left)]))

    def _none_started(self) -> ResourceError:
        return ResourceError(f"no worker could be started; the last one said:\n{self._last_failure}")


def call_all(backend: Backend, calls: Sequence[tuple[int | None, Call]]) -> list[Finished | Lost]:
    """The outcome of every call, in their order; None as a slot takes any. Nothing else may be under way."""
    waiting = list(range(len(calls)))
    found: dict[int, Finished | Lost] = {}
    while len(found) < len(calls):
        for slot in backend.idle(1):
            ticket = next((t for t in waiting if calls[t][0] in (None, slot)), None)
            if ticket is not None:
                waiting.remove(ticket)
                backend.submit(slot, ticket, calls[ticket][1])
        for event in backend.wait(1.0):
            if isinstance(event, Finished):
                found[event.ticket] = event
            elif isinstance(event, Lost) and event.running is not None:
                found[event.running] = event
    return [found[ticket] for ticket in range(len(calls))]
