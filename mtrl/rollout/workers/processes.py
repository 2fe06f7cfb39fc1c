"""Worker processes of this machine as slots."""

from __future__ import annotations

import queue
import time

from mtrl.errors import ResourceError
from mtrl.tasks import TaskSet

from ..policy import PolicySnapshot, Version
from ..runtime import RuntimeConfig
from .backend import KEPT, START_SECONDS, Backend, Event
from .calls import Call, LanesState, Measure
from .link import Answer, Inbox, WorkerLink
from .wire import describe, describe_tasks, rebuild, rebuild_error


class Processes(Backend):
    """`Backend` on processes of this machine. A process that dies is its call's fault.

    The policy lies in this process and travels to a worker ahead of the first call that needs it, so it is
    safe as soon as it is published, and one that nobody acted with does not travel.
    """

    def __init__(self, tasks: TaskSet, config: RuntimeConfig) -> None:
        """Starts nothing yet."""
        super().__init__(config.job_timeout_seconds)
        self._greeting = {
            "order": "tasks",
            "tasks": describe_tasks(tasks),
            "backends": dict(config.backends),
        }
        self._inbox: Inbox = queue.SimpleQueue()
        self._links: dict[int, WorkerLink] = {}
        self._policy: PolicySnapshot | None = None
        self._sent: dict[int, PolicySnapshot] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(link.pid for _, link in sorted(self._links.items()))

    def publish(self, policy: PolicySnapshot, keep: int = KEPT) -> Version:
        """As of Backend; a call takes its policy along, whatever `keep` is."""
        if self._policy is None or not self._policy.same_as(policy):
            self._policy = policy
        return Version(policy.incarnation, policy.version)

    def close(self) -> None:
        """As of Backend."""
        self._forget_calls()
        for link in self._links.values():
            link.disconnect()
        for link in self._links.values():
            link.close()

    def _start_worker(self, slot: int) -> None:
        self._links[slot] = WorkerLink(self._inbox, (slot, self.slots[slot].epoch))
        self._links[slot].send(self._greeting)

    def _stop(self, slot: int) -> None:
        self._sent.pop(slot, None)
        self._links[slot].close(at_once=True)

    def _send(self, slot: int, call: Call) -> None:
        link = self._links[slot]
        if not isinstance(call, Measure | LanesState) and self._sent.get(slot) is not self._policy:
            assert self._policy is not None, "a policy is published before the first call that acts"
            plain, arrays = describe(self._policy)
            link.send({"order": "policy", "policy": plain}, arrays)
            self._sent[slot] = self._policy
        plain, arrays = describe(call)
        link.send({"order": "call", "call": plain}, arrays)

    def _receive(self, seconds: float) -> list[Event]:
        events = self._ended_or_late()
        try:
            sender, answer = self._inbox.get(timeout=0.0 if events else seconds)
            while True:
                slot, epoch = sender
                if epoch == self.slots[slot].epoch:
                    events.append(self._received(slot, answer))
                sender, answer = self._inbox.get_nowait()
        except queue.Empty:
            return events

    def _ended_or_late(self) -> list[Event]:
        """Processes that ended while they had nothing to do: no later call is to blame."""
        events: list[Event] = []
        for index, slot in enumerate(self.slots):
            if slot.up and not slot.calls and self._links[index].has_ended:
                events.append(self._lose(index, self._links[index].ending(), blamed=False))
            elif not slot.up and time.monotonic() - slot.clock > START_SECONDS:
                raise _not_started(f"it has not answered for {START_SECONDS:g} s")
        return events

    def _received(self, slot: int, answer: Answer | None) -> Event:
        held = self.slots[slot]
        if answer is None:
            ending = self._links[slot].ending()
            if not held.up:
                # its packages cannot be loaded, and a successor fares no better
                raise _not_started(ending)
            return self._lose(slot, ending, blamed=True)
        header, arrays = answer
        if header["reply"] == "ready":
            return self._started(slot)
        if not held.up:
            raise rebuild_error(header)
        if header["reply"] == "value":
            return self._finished(slot, rebuild(header["value"], arrays))
        return self._finished(slot, None, rebuild_error(header))


def _not_started(reason: str) -> ResourceError:
    return ResourceError(f"a worker process could not start: {reason}")
