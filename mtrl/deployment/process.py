"""What both child processes share: reading their orders, waiting, and ending when the session is gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from .wire import SessionSpec, Wire, Word

POLL_S = 0.002
"""Pause between looks at a control word outside a running episode."""


class SessionEnded(BaseException):
    """The session asked its processes to stop, or died. Not an error: nothing should catch it but `main`."""


class Link:
    """A child's side of the session."""

    def __init__(self, spec: SessionSpec) -> None:
        """Attaches the shared blocks."""
        self.spec = spec
        self.wire = Wire.attach(spec)

    def raise_if_ended(self) -> None:
        """Raises SessionEnded when the session stopped or its process is gone. Costs a microsecond."""
        if self.wire.control[Word.STOP] or os.getppid() != self.spec.parent:
            raise SessionEnded

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Waits, outside a running episode, until `ready()`."""
        while not ready():
            self.raise_if_ended()
            time.sleep(POLL_S)

    def tell(self, word: Word, value: int) -> None:
        """Writes one control word."""
        self.wire.control[word] = value

    def told(self, word: Word) -> int:
        """Reads one control word."""
        return int(self.wire.control[word])


def run_child(body: Callable[[Link], None]) -> None:
    """Entry point of a child process: orders from standard input, then `body` until the session ends."""
    # Ctrl-C in a terminal reaches every process; the session decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(SessionSpec.from_json(sys.stdin.read()))
    try:
        body(link)
    except SessionEnded:
        return
