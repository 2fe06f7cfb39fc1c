"""Continuous collection on a pool of workers."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mtrl.errors import EnvironmentFault, UnsupportedError
from mtrl.tasks import TaskSet

from ..fragment import Fragment, fragment_bytes
from ..policy import PolicySnapshot, Version
from ..runtime import CollectionConfig, FaultHandler, RuntimeConfig
from ..workers.backend import IN_FLIGHT, START_SECONDS, Backend, Finished, Lost, call_all
from ..workers.calls import Collect, LanesState, RestoreLane
from ..workers.messages import describe, rebuild
from ..workers.worker import LaneAssignment, OpenLaneState
from .lane_placement import LanePlacement, measure
from .lane_supervisor import LaneSupervisor

Delivery = Literal["rounds", "arrival"]


@dataclass(eq=False)
class _Request:
    """A fragment that is under way or waits for its delivery."""

    lane: int
    ticket: int | None = None
    """Ticket of the call under way; None while the request is not submitted."""
    opening: int = 0
    """Openings of the lane when it was submitted."""
    fragment: Fragment | None = None


class PoolFragments:
    """`Fragments` from any back end, each of whose workers hosts lanes by their measured cost.

    A worker that dies or hangs is replaced and its lanes are opened again; an environment that fails costs
    its own lane only. Two ways of delivery:

    - "rounds": fragments come in the order of their requests: lane after lane, or by shares,
      whichever worker is faster. As many as there are lanes are under way while the learner works, so a
      fragment's policy is at most one round old. With the same placement of lanes, equal seeds give equal
      fragments, and a run that is interrupted and resumed gives those of one that was not.
    - "arrival": fragments come as they are finished; workers run ahead by at most two each, and pause
      beyond `queue_megabytes`.
    """

    def __init__(
        self,
        tasks: TaskSet,
        backend: Backend,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
        step_seconds: Sequence[float] | None = None,
        *,
        delivery: Delivery = "rounds",
    ) -> None:
        """Takes over a back end that was started, which it closes when it raises; measures a decision of each
        task unless `step_seconds` [K] is given.
        """
        self.backend, self.delivery = backend, delivery
        self.by_arrival = delivery == "arrival"
        self._tasks, self._collection = tasks, collection
        self._supervisor = LaneSupervisor(seed, config.attempts, on_fault)
        self.quarantined = self._supervisor.quarantined
        try:
            self.publish(snapshot)
            if step_seconds is None and len(backend.slots) > 1 and len(tasks) > 1:
                step_seconds = measure(backend, len(tasks))
            self.step_seconds = list(step_seconds or [1.0] * len(tasks))
            """[K], cost of one decision of one copy, by which lanes are placed."""
            self._placement = LanePlacement(
                [collection.copies] * len(tasks), len(backend.slots), self.step_seconds
            )
        except BaseException:
            backend.close()
            raise
        self._begun = False
        self._tickets = count()
        self._open: set[int] = set()
        self._closing: defaultdict[int, list[LaneAssignment]] = defaultdict(list)
        """Lanes that have moved away from a slot whose worker still has them open."""
        self._sizes: dict[int, int] = {}
        """Bytes of each lane's last fragment."""
        self._requests: deque[_Request] = deque()
        """By rounds in the order of delivery."""
        self._calls: dict[int, _Request] = {}

    @property
    def lanes(self) -> tuple[tuple[LaneAssignment, ...], ...]:
        """The lanes of each slot."""
        lanes = self._placement.lanes
        slots = range(len(self.backend.slots))
        return tuple(tuple(lanes[lane] for lane in self._placement.of(slot)) for slot in slots)

    def publish(self, snapshot: PolicySnapshot) -> Version:
        """New weights, used by every fragment requested from now on; by arrival on Ray also by one that was
        requested and has not begun.
        """
        return self.backend.publish(snapshot)

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """As of Fragments. Set before the first fragment they also move lanes between workers."""
        self._placement.set_shares(shares, move=not self._begun)

    def stream(self) -> Iterator[Fragment]:
        """As of Fragments; workers finish what is under way while the consumer is busy."""
        self._begun = True
        while len(self.quarantined) < len(self._tasks):
            ready = self._next_ready()
            if ready is None:
                self._advance()
                continue
            assert ready.fragment is not None, "a request that is ready must have its fragment"
            self._requests.remove(ready)
            if self.delivery == "rounds":
                self._request_in_rounds()
            yield ready.fragment

    def close(self) -> None:
        """Ends the workers. May be called twice."""
        self.backend.close()

    def state_dict(self) -> dict[str, Any]:
        """Lanes with their slots and states, turns, and the fragments that are not yet delivered; waits for
        those that are under way.

        Raises UnsupportedError where fragments come by arrival or a task's backend cannot reset to a given
        start.
        """
        if self.delivery != "rounds":
            raise UnsupportedError("fragments that come by arrival cannot be continued exactly")
        while self._calls or any(request.fragment is None for request in self._requests):
            self._advance()
        # lanes of quarantined tasks are never stepped again
        self._open -= set(self._placement.of_tasks(self.quarantined))
        found: dict[tuple[int, int, int], OpenLaneState] = {}
        hosts = sorted({self._placement.home[lane] for lane in self._open})
        for outcome in call_all(self.backend, [(slot, LanesState()) for slot in hosts]):
            if isinstance(outcome, Finished) and outcome.error is not None:
                raise outcome.error
            if isinstance(outcome, Finished) and isinstance(outcome.value, list):
                found |= {(outcome.slot, s["task_index"], s["first_copy"]): s for s in outcome.value}
        states = [
            found.get((slot, assignment.task_index, assignment.first_copy))
            for slot, assignment in zip(self._placement.home, self._placement.lanes, strict=True)
        ]
        # those of a worker that was lost meanwhile are not open any more
        self._open = {lane for lane in self._open if states[lane] is not None}
        ready = []
        for request in self._requests:
            plain, arrays = describe(request.fragment)
            ready.append({"lane": request.lane, "fragment": plain, "arrays": arrays})
        return {
            "deal": self._placement.state_dict(),
            "supervisor": self._supervisor.state_dict(),
            "lanes": [{"lane": lane, "state": states[lane]} for lane in sorted(self._open)],
            "ready": ready,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Rebuilds the lanes in the workers; of these there may be another number than there was."""
        copies = np.zeros(len(self._tasks), dtype=np.int64)
        for saved in state.get("deal", {"lanes": ()})["lanes"]:
            copies[saved["task_index"]] += saved["copies"]
        if (copies != self._collection.copies).any():
            raise UnsupportedError(
                f"the saved lanes hold {copies.tolist()} copies of the tasks in workers; expected "
                f"{self._collection.copies} of each"
            )
        self._begun = True
        self._placement.load_state_dict(state["deal"])
        self._supervisor.load_state_dict(state["supervisor"])
        self._requests = deque(
            _Request(entry["lane"], fragment=rebuild(entry["fragment"], entry["arrays"]))
            for entry in state["ready"]
        )
        lanes = [entry["lane"] for entry in state["lanes"]]
        calls = []
        for entry in state["lanes"]:
            assignment, home = self._placement.lanes[entry["lane"]], self._placement.home[entry["lane"]]
            seed = self._supervisor.reopening_seed(assignment)
            calls.append((home, RestoreLane(assignment, seed, self._collection.stagger, entry["state"])))
        for lane, outcome in zip(lanes, call_all(self.backend, calls), strict=True):
            if isinstance(outcome, Finished) and outcome.error is None:
                self._open.add(lane)
            else:
                self._count(self._placement.lanes[lane], outcome)
        self._forget()

    def _advance(self) -> None:
        """Submits what is due and waits for events."""
        self._reassign_lanes()
        if self.delivery == "rounds":
            self._request_in_rounds()
        else:
            self._request_by_arrival()
        for event in self.backend.wait(1.0):
            if isinstance(event, Finished):
                self._collect(event, self._calls.pop(event.ticket))
            elif isinstance(event, Lost):
                self._lost(event)

    def _request_in_rounds(self) -> None:
        """As many requests as there are lanes left, those submitted whose workers have started."""
        out = self._placement.of_tasks(self.quarantined)
        while len(self._requests) < len(self._placement) - len(out):
            self._requests.append(_Request(self._placement.take(out)))
        away = self._placement.away(self._started_slots())
        for request in self._requests:
            home = self._placement.home[request.lane]
            waits = request.ticket is None and request.fragment is None and request.lane not in away
            if waits and self.backend.slots[home].started:
                self._submit(request)

    def _request_by_arrival(self) -> None:
        """Gives every slot its next lanes, as far as the queue's bytes allow; one fragment always."""
        limit, started = self._collection.queue_megabytes * 2**20, self._started_slots()
        out = [*self._placement.of_tasks(self.quarantined), *self._placement.away(started)]
        for depth in range(1, IN_FLIGHT + 1):
            for slot in self.backend.idle(depth):
                lane = self._placement.next_of(slot, out, started)
                if lane is None:
                    continue
                size = sum(map(self._bytes, [lane, *(request.lane for request in self._requests)]))
                if self._requests and size > limit:
                    self._placement.put_back(lane)
                    return
                self._requests.append(_Request(lane))
                self._submit(self._requests[-1])

    def _submit(self, request: _Request) -> None:
        assignment, settings = self._placement.lanes[request.lane], self._collection
        opening = None if request.lane in self._open else self._supervisor.opening_seed(assignment)
        self._open.add(request.lane)
        request.ticket, request.opening = next(self._tickets), self._supervisor.openings(assignment)
        self._calls[request.ticket] = request
        slot, newest = self._placement.home[request.lane], self.delivery == "arrival"
        closing = tuple(self._closing.pop(slot, ()))
        call = Collect(
            assignment, settings.steps, settings.acting, settings.stagger, opening, newest, closing
        )
        self.backend.submit(slot, request.ticket, call)

    def _next_ready(self) -> _Request | None:
        """The request to be delivered next; None as long as its fragment is under way."""
        candidates = list(self._requests)[:1] if self.delivery == "rounds" else self._requests
        return next((request for request in candidates if request.fragment is not None), None)

    def _collect(self, event: Finished, request: _Request) -> None:
        assignment, request.ticket = self._placement.lanes[request.lane], None
        if isinstance(event.value, Fragment) and assignment.task_index not in self.quarantined:
            request.fragment = self._supervisor.delivered(assignment, event.value)
            self._sizes[request.lane] = event.value.nbytes
            return
        # without an error the lane had failed already, and may have been opened again since
        if request.opening == self._supervisor.openings(assignment):
            self._open.discard(request.lane)
        self._count(assignment, event)
        self._forget()

    def _lost(self, event: Lost) -> None:
        """The lanes of the slot are closed; the one that was stepped may be the cause."""
        self._open -= set(self._placement.of(event.slot))
        self._closing.pop(event.slot, None)
        started = self._started_slots()
        if event.moves and started:
            self._placement.reassign(event.slot, started)
        for ticket in event.waiting:
            self._calls.pop(ticket).ticket = None
        if event.running is not None:
            request = self._calls.pop(event.running)
            request.ticket = None
            self._count(self._placement.lanes[request.lane], event)
        self._forget()

    def _count(self, assignment: LaneAssignment, outcome: Finished | Lost) -> None:
        """Counts a fault of a lane, or the death of a worker that it caused; raises every other error."""
        if assignment.task_index in self.quarantined:
            return
        if isinstance(outcome, Lost):
            name = self._tasks[assignment.task_index].name
            fault = EnvironmentFault(name, f"a fragment of {assignment}", outcome.reason)
            if outcome.is_cause:
                self._supervisor.failed(assignment, fault)
        elif isinstance(outcome.error, EnvironmentFault):
            self._supervisor.failed(assignment, outcome.error)
        elif outcome.error is not None:
            raise outcome.error

    def _forget(self) -> None:
        """Forgets requests of quarantined tasks; by arrival also those that came to nothing."""
        out, arrival = self._placement.of_tasks(self.quarantined), self.delivery == "arrival"
        self._requests = deque(
            request
            for request in self._requests
            if request.lane not in out
            and not (arrival and request.ticket is None and request.fragment is None)
        )

    def _reassign_lanes(self) -> None:
        """Moves the lanes of a slot whose worker does not start to those that have started, and back when it
        has, each as soon as no fragment of it is under way.
        """
        now, started = time.monotonic(), self._started_slots()
        for index, slot in enumerate(self.backend.slots):
            patience = self.backend.replacement_seconds if slot.epoch else START_SECONDS
            if not slot.started and now - slot.clock > patience and started and self._placement.of(index):
                self._placement.reassign(index, started)
        busy = {request.lane for request in self._calls.values()}
        for lane in self._placement.away(started):
            if lane not in busy:
                if lane in self._open:
                    self._open.remove(lane)
                    self._closing[self._placement.home[lane]].append(self._placement.lanes[lane])
                self._placement.move_back(lane)

    def _started_slots(self) -> list[int]:
        return [index for index, slot in enumerate(self.backend.slots) if slot.started]

    def _bytes(self, lane: int) -> int:
        assignment, steps = self._placement.lanes[lane], self._collection.steps
        return self._sizes.get(lane) or fragment_bytes(
            self._tasks, assignment.task_index, assignment.copies, steps
        )
