"""A worker process: `python -m mtrl.rollout.worker_process FD`, a `RolloutWorker` behind a socket."""

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
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from mtrl.errors import ConfigError, MtrlError
from mtrl.tasks import set_native_threads

from .frames import pack_frame, read_frame, write_frame
from .policy import Acting, PolicySnapshot
from .worker import LaneAssignment, RolloutWorker
from .worker_wire import (
    Arrays,
    describe_bug,
    describe_error,
    describe_fragment,
    describe_result,
    rebuild_job,
    rebuild_policy,
    rebuild_share,
    rebuild_tasks,
)

GRACE_SECONDS = 1.0
"""Time to free the simulators once the other side is gone."""

Order = tuple[dict[str, Any], Arrays]
Reply = tuple[dict[str, Any], Arrays]


class WorkerServer:
    """Answers orders one after another; every order but `policy` is answered by exactly one frame."""

    def __init__(self) -> None:
        """Knows no task yet."""
        self._worker: RolloutWorker | None = None
        self._snapshot: PolicySnapshot | None = None
        self._open: set[LaneAssignment] = set()
        self._orders: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "tasks": self._tasks,
            "measure": self._measure,
            "collect": self._collect,
            "play": self._play,
        }

    def answer(self, header: dict[str, Any], arrays: Arrays) -> Reply | None:
        """Carries out one order; errors come back as replies."""
        if header["order"] == "policy":
            self._snapshot = rebuild_policy(header, arrays)
            return None
        try:
            return self._orders[header["order"]](header)
        except MtrlError as error:
            return {**describe_error(error, traceback.format_exc()), "order": header["order"]}, {}
        except Exception:  # noqa: BLE001 - handed over whole, to be raised by the caller
            # a process that ended of it would be taken for the environment's fault
            return {**describe_bug(traceback.format_exc()), "order": header["order"]}, {}

    def close(self) -> None:
        """Frees the simulators."""
        if self._worker is not None:
            self._worker.close()

    @property
    def worker(self) -> RolloutWorker:
        """The worker; raises ConfigError before the tasks are known."""
        if self._worker is None:
            raise ConfigError("the worker process was given an order before its tasks")
        return self._worker

    def _tasks(self, header: dict[str, Any]) -> Reply:
        self._worker = RolloutWorker(rebuild_tasks(header["tasks"]), header["backends"])
        return {"reply": "ready"}, {}

    def _measure(self, header: dict[str, Any]) -> Reply:
        return {"reply": "cost", "seconds": self.worker.measure(header["task_index"])}, {}

    def _collect(self, header: dict[str, Any]) -> Reply:
        share = rebuild_share(header["share"])
        assert self._snapshot is not None, "a policy comes before the first collect"
        if share not in self._open:
            self.worker.open([share], self._snapshot, header["seed"], header["stagger"])
            self._open.add(share)
        try:
            acting = Acting(**header["acting"])
            fragment = self.worker.collect(share, header["steps"], self._snapshot, acting)
        except MtrlError:
            self._open.discard(share)
            raise
        found, arrays = describe_fragment(fragment)
        return {"reply": "fragment", **found}, arrays

    def _play(self, header: dict[str, Any]) -> Reply:
        assert self._snapshot is not None, "a policy comes before the first job"
        result, arrays = describe_result(self.worker.run(rebuild_job(header["job"]), self._snapshot))
        return {"reply": "result", **result}, arrays


def _take_in(stream: BinaryIO, orders: queue.SimpleQueue[Order | None]) -> None:
    """Hands orders on; ends the process when nobody is left to give any, whatever it is busy with."""
    with contextlib.suppress(EOFError, OSError):
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
        threading.Thread(target=_take_in, args=(stream, orders), daemon=True).start()
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
