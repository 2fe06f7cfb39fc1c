"""The flight recorder: copies an episode from shared memory into its log while it goes on."""

from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager
from pathlib import Path

from mtrl.disk_errors import disk_errors

from ..realtime.records import ControlField, FlightRing, SessionMemory
from .flight import Flight
from .log import FlightWriter

FLUSH_S = 0.25
"""Time between two flushes, in seconds: what a killed logger loses of a flight, at most, and two polls."""


class FlightRecorder:
    """Streams one episode. The servo never waits for it, and no death of a process empties it."""

    def __init__(self, path: Path, memory: SessionMemory, number: int, flight: Flight) -> None:
        """`flight`: what is known before the first tick of episode `number`, without rows."""
        self.path = path
        self._begun = dataclasses.replace(flight, clock_ns=time.time_ns() - time.monotonic_ns())
        self._control = memory.control
        self._number = number
        self._ring = FlightRing(
            memory.ring, flight.observation.shape[1], flight.command.shape[1], flight.joints.shape[1]
        )
        with self._disk_errors():
            # a file of its own: a session that was taken over goes on in the one that it opened
            path.unlink(missing_ok=True)
            self._file = path.open("xb")
            self._writer = FlightWriter(self._file, self._begun)
            self._writer.flush()
        self._written = self._seen = 0
        self._flushed = time.monotonic()

    @property
    def _rows(self) -> int:
        """Rows of this episode in the ring."""
        begun = self._control[ControlField.SERVO_READY] >= self._number
        return int(self._control[ControlField.ROWS]) if begun else 0

    def update(self) -> None:
        """Appends what has come; called at every poll of the logger."""
        # Rows are read one poll after they were counted: a processor may show the count before the row.
        with self._disk_errors():
            self._append(self._seen)
            self._seen = self._rows
            if (now := time.monotonic()) - self._flushed > FLUSH_S:
                self._writer.flush()
                self._flushed = now

    def close(self, ending: str) -> None:
        """Appends the rest and finishes the log; the servo is at rest."""
        with self._disk_errors(), self._file:
            self._append(self._rows)
            self._writer.close(ending)

    def _disk_errors(self) -> AbstractContextManager[None]:
        return disk_errors(self.path, "the rest of ")

    def _append(self, end: int) -> None:
        if end > self._written:
            self._writer.append(self._begun.with_rows(self._ring, self._written, end))
            self._written = end
