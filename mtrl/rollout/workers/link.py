"""The parent's end of a worker process."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy.typing as npt

from mtrl.errors import IntegrityError

from .frames import pack_frame, read_frame, write_frame
from .wire import Arrays

_GRACE_SECONDS = 2.0

Sender = tuple[int, int]
"""Slot and epoch of a worker."""
Answer = tuple[dict[str, Any], Arrays]
Inbox = queue.SimpleQueue[tuple[Sender, Answer | None]]
"""Answers with who gave them; None says that the process is gone."""


class WorkerLink:
    """A process that answers orders in their order, all but "policy", which has no answer.

    One thread writes orders, so that nobody waits for a process that is busy stepping, and one reads
    answers, so that the process never waits for us.
    """

    def __init__(self, inbox: Inbox, sender: Sender) -> None:
        """Starts the process; its answers go to `inbox`, which several links share, under `sender`."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C in a terminal reaches the parent alone, which ends its workers.
            self._process = subprocess.Popen(
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
            threading.Thread(target=body, daemon=True, name=f"mtrl-worker-{self._process.pid}")
            for body in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Sends an order, at once; that nobody is there to take it shows in the inbox.

        Arrays must not change until the order has been taken. Raises TypeError for what cannot travel.
        """
        # packed here and not in the thread, where nobody would see a mistake
        self._orders.put(pack_frame(header, arrays or {}))

    def disconnect(self) -> None:
        """Lets the process end, and waits for nothing; `close` is still to be called."""
        # the reader sees the end of the stream, and so does the process, unless it was gone already
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, at_once: bool = False) -> None:
        """Ends the process, which may free its simulators unless `at_once`; returns when it has ended. May be
        called twice.
        """
        self.disconnect()
        try:
            self._process.wait(0.0 if at_once else _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._orders.put(None)
        for thread in self._threads:
            thread.join(_GRACE_SECONDS)
        # what could not be written any more is flushed once again
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()

    def ending(self) -> str:
        """How the process ended, in words."""
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "its worker process closed the connection"
        if status < 0:
            return f"its worker process was ended by signal {-status}"
        return f"its worker process ended with status {status}; its messages are on standard error"

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
