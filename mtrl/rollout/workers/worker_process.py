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
import traceback
from typing import Any, BinaryIO, cast

from mtrl.errors import IntegrityError, MtrlError
from mtrl.tasks import set_native_threads

from ..policy import PolicySnapshot
from .calls import CallExecutor
from .frames import pack_frame, read_frame, write_frame
from .wire import Arrays, describe, describe_error, rebuild, rebuild_tasks

GRACE_SECONDS = 1.0
"""Time to free the simulators once the other side is gone."""

Order = tuple[dict[str, Any], Arrays]
Reply = tuple[dict[str, Any], Arrays]


class WorkerServer:
    """Carries out orders one after another; every order but "policy" is answered by exactly one frame."""

    def __init__(self) -> None:
        """Knows no task yet."""
        self._executor: CallExecutor | None = None
        self._snapshot: PolicySnapshot | None = None

    def answer(self, header: dict[str, Any], arrays: Arrays) -> Reply | None:
        """Carries out one order; errors come back as replies."""
        if header["order"] == "policy":
            self._snapshot = rebuild(header["policy"], arrays)
            return None
        try:
            if header["order"] == "tasks":
                self._executor = CallExecutor(rebuild_tasks(header["tasks"]), header["backends"])
                return {"reply": "ready"}, {}
            assert self._executor is not None, "the tasks come before the first call"
            value = self._executor.perform(rebuild(header["call"], arrays), self._policy)
            plain, found = describe(value)
            return {"reply": "value", "value": plain}, found
        except MtrlError as error:
            return describe_error(error, traceback.format_exc()), {}
        except Exception:  # noqa: BLE001 - sent whole, to be raised by the caller
            # a process that ended of it would be taken for the environment's fault
            return {"reply": "bug", "trace": traceback.format_exc()}, {}

    def close(self) -> None:
        """Frees the simulators."""
        if self._executor is not None:
            self._executor.close()

    def _policy(self) -> PolicySnapshot:
        assert self._snapshot is not None, "a policy comes before the first call that acts"
        return self._snapshot


def _receive(stream: BinaryIO, orders: queue.SimpleQueue[Order | None]) -> None:
    """Hands orders on; ends the process when nobody is left to give any, whatever it is busy with."""
    # a link that is closed in the middle of a message may look like a wrong one
    with contextlib.suppress(EOFError, OSError, ValueError, IntegrityError):
        try:
            while True:
                orders.put(read_frame(stream))
        finally:
            orders.put(None)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main(descriptor: int) -> None:
    """Serves until the other side is gone; an order that is being carried out then is broken off."""
    # Ctrl-C in a terminal reaches every process; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the other processors belong to the other workers
    set_native_threads(1)
    server = WorkerServer()
    # closing the stream writes what is left in it, to a parent that may have gone in the midst of an answer
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=descriptor) as link,
        link.makefile("rwb") as file,
    ):
        stream = cast(BinaryIO, file)
        orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
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
    # What a simulator prints must not get lost among nothing: it goes where messages go.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(int(sys.argv[1]))
