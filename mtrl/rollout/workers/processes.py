"""Worker processes of this machine as slots, and the parent's end of one."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from mtrl.errors import IntegrityError, ResourceError
from mtrl.tasks import TaskSet

from ..policy import PolicySnapshot, Version
from ..runtime import RuntimeConfig
from .backend import KEPT, START_SECONDS, Backend, Event
from .calls import Call, LanesState, Measure
from .messages import (
    Arrays,
    RemoteError,
    describe,
    describe_tasks,
    pack_frame,
    read_frame,
    rebuild,
    write_frame,
)

GRACE_SECONDS = 2.0
"""Time for a process to end once its connection is closed."""

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""Signals of a person, a scheduler, or a system that is short of memory; a crash has another one."""

Sender = tuple[int, int]
"""Slot and epoch of a worker."""
Answer = tuple[dict[str, Any], Arrays]
Inbox = queue.SimpleQueue[tuple[Sender, Answer | None]]
"""Answers with their senders; None where the process has ended."""


class Processes(Backend):
    """`Backend` on processes of this machine. The running call is the cause of its process's death, unless
    the process was killed from outside.

    The policy is kept in this process and sent to a worker ahead of the first call that needs it, so it is
    safe as soon as it is published, and one that nothing acted with is not sent.
    """

    def __init__(self, tasks: TaskSet, config: RuntimeConfig) -> None:
        """Starts nothing yet."""
        super().__init__(config.job_timeout_seconds)
        self._greeting = {
            "order": "tasks",
            "content": describe_tasks(tasks),
            "backends": dict(config.backends),
        }
        self._inbox: Inbox = queue.SimpleQueue()
        self._links: dict[int, WorkerLink] = {}
        self._policy: PolicySnapshot | None = None
        self._sent: dict[int, PolicySnapshot] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(link.process.pid for _, link in sorted(self._links.items()))

    def publish(self, policy: PolicySnapshot, keep: int = KEPT) -> Version:
        """As `Backend.publish`; every call is sent with its policy, whatever `keep` is."""
        if self._policy is None or not self._policy.same_as(policy):
            self._policy = policy
        return Version(policy.incarnation, policy.version)

    def close(self) -> None:
        """Ends every worker, as `Backend.close`."""
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
            assert self._policy is not None, "a policy must be published before the first call that acts"
            link.send({"order": "policy"}, self._policy)
            self._sent[slot] = self._policy
        link.send({"order": "call"}, call)

    def _receive(self, seconds: float) -> list[Event]:
        events = self._ended_or_late()
        try:
            (slot, epoch), answer = self._inbox.get(timeout=0.0 if events else seconds)
            while True:
                if epoch == self.slots[slot].epoch:
                    events.append(self._received(slot, answer))
                (slot, epoch), answer = self._inbox.get_nowait()
        except queue.Empty:
            return events

    def _ended_or_late(self) -> list[Event]:
        """Processes that ended while they had nothing to do: no later call is to blame."""
        events: list[Event] = []
        for index, slot in enumerate(self.slots):
            link = self._links[index]
            if slot.started and not slot.calls and link.process.poll() is not None:
                events.append(self._lose(index, link.ending(), is_cause=False))
            elif not slot.started and time.monotonic() - slot.clock > START_SECONDS:
                raise _not_started(f"it has not answered for {START_SECONDS:g} s")
        return events

    def _received(self, slot: int, answer: Answer | None) -> Event:
        started = self.slots[slot].started
        if answer is None:
            ending = self._links[slot].ending()
            if not started:
                # its packages cannot be loaded, and a successor fares no better
                raise _not_started(ending)
            return self._lose(slot, ending, is_cause=not self._links[slot].was_killed)
        header, arrays = answer
        if header["reply"] == "ready":
            return self._started(slot)
        content = rebuild(header["content"], arrays)
        if isinstance(content, RemoteError):
            if not started:
                raise content.error()
            return self._finished(slot, None, content.error())
        return self._finished(slot, content)


class WorkerLink:
    """A process that answers orders in their order, all but "policy", which has no answer.

    One thread writes orders, so that nothing waits for a process that is busy stepping, and one reads
    answers, so that the process never waits for this one.
    """

    def __init__(self, inbox: Inbox, sender: Sender) -> None:
        """Starts the process; its answers are put into `inbox`, which several links share, under `sender`."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C in a terminal reaches the parent alone, which ends its workers.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mtrl.rollout.workers.worker_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=child_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._stream = cast(BinaryIO, ours.makefile("rwb"))
        self._inbox, self._sender = inbox, sender
        self._orders: queue.SimpleQueue[list[bytes | memoryview] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=body, daemon=True, name=f"mtrl-worker-{self.process.pid}")
            for body in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, header: Mapping[str, Any], content: object = None) -> None:
        """Sends an order, at once; if the process has ended, the inbox says so.

        Arrays must not change until the order has arrived. Raises TypeError for what cannot be sent.
        """
        # packed here and not in the thread, where an error would be lost
        plain, arrays = describe(content)
        self._orders.put(pack_frame({"content": plain, **header}, arrays))

    def disconnect(self) -> None:
        """Lets the process end without waiting for it; `close` is still to be called."""
        # the reader sees the end of the stream, and so does the process, unless it ended before
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, at_once: bool = False) -> None:
        """Ends the process, which may free its simulators unless `at_once`; returns when it has ended. May be
        called twice.
        """
        self.disconnect()
        try:
            self.process.wait(0.0 if at_once else GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._orders.put(None)
        for thread in self._threads:
            thread.join(GRACE_SECONDS)
        # what could not be written any more is flushed once again
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()

    def ending(self) -> str:
        """How the process ended, in words."""
        try:
            status = self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "its worker process closed the connection"
        if status < 0:
            return f"its worker process was ended by {signal.Signals(-status).name}"
        return f"its worker process ended with status {status}; its messages are on standard error"

    @property
    def was_killed(self) -> bool:
        """Whether the process was ended from outside."""
        return self.process.returncode in [-number for number in OUTSIDE]

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put((self._sender, read_frame(self._stream)))
        except (EOFError, OSError, ValueError, IntegrityError):
            self._inbox.put((self._sender, None))

    def _write(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                write_frame(self._stream, order)
            except (OSError, ValueError):
                return  # the reader notices the same


def child_environment() -> dict[str, str]:
    """Environment variables with which a child process finds the same modules in the same order.

    Libraries start one thread: a worker has one core, and more threads than cores cost more than they gain.
    """
    paths = [str(Path(entry or ".").resolve()) for entry in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def _not_started(reason: str) -> ResourceError:
    return ResourceError(f"a worker process could not start: {reason}")
