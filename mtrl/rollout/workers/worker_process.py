"""A worker process: `python -m mtrl.rollout.workers.worker_process FD`, a `CallExecutor` behind a socket."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from typing import Any, BinaryIO, cast

from mtrl.errors import IntegrityError
from mtrl.tasks import set_native_threads

from ..policy import PolicySnapshot
from .calls import CallExecutor
from .messages import (
    Arrays,
    RemoteError,
    describe,
    pack_frame,
    read_frame,
    rebuild,
    rebuild_tasks,
    write_frame,
)

GRACE_SECONDS = 1.0
"""Time to free the simulators once the parent is gone."""

Frame = tuple[dict[str, Any], Arrays]


class WorkerServer:
    """Carries out orders one after another; every order but "policy" is answered by exactly one frame."""

    executor: CallExecutor
    """Comes with the first order."""
    snapshot: PolicySnapshot
    """Comes before the first call that acts."""

    def answer(self, header: dict[str, Any], arrays: Arrays) -> Frame | None:
        """Carries out one order; errors come back as replies."""
        order, content = header["order"], header["content"]
        if order == "policy":
            self.snapshot = rebuild(content, arrays)
            return None
        try:
            if order == "tasks":
                self.executor = CallExecutor(rebuild_tasks(content), header["backends"])
                return {"reply": "ready"}, {}
            plain, found = describe(self.executor.perform(rebuild(content, arrays), lambda: self.snapshot))
            return {"reply": "value", "content": plain}, found
        except BaseException as error:  # noqa: BLE001 - sent whole, to be raised by the caller
            # a process that ended of it would be taken for the environment's fault
            return {"reply": "error", "content": describe(RemoteError.of(error))[0]}, {}

    def close(self) -> None:
        """Frees the simulators."""
        if hasattr(self, "executor"):
            self.executor.close()


def _receive(stream: BinaryIO, orders: queue.SimpleQueue[Frame | None]) -> None:
    """Queues orders; ends the process when the parent is gone, even in the middle of a call."""
    # a connection that is closed in the middle of a frame may look like a wrong one
    with contextlib.suppress(EOFError, OSError, ValueError, IntegrityError):
        try:
            while True:
                orders.put(read_frame(stream))
        finally:
            orders.put(None)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main(descriptor: int) -> None:
    """Serves until the parent is gone; an order that is being carried out then is broken off."""
    # Ctrl-C in a terminal reaches every process; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the other processors belong to the other workers
    set_native_threads(1)
    server = WorkerServer()
    # closing the stream writes what is left in it, to a parent that may have ended in the middle of a frame
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=descriptor) as link,
        link.makefile("rwb") as file,
    ):
        stream = cast(BinaryIO, file)
        orders: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(stream, orders), daemon=True).start()
        try:
            while (order := orders.get()) is not None:
                reply = server.answer(*order)
                if reply is not None:
                    write_frame(stream, pack_frame(*reply))
        finally:
            # wakes the thread, which holds the stream while it waits
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            server.close()


if __name__ == "__main__":
    # What a simulator prints goes to standard error, where messages go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(int(sys.argv[1]))
