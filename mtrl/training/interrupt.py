"""The first Ctrl-C requests a stop, made when the work can stop; a second one stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from mtrl.faults import UserInterrupt

SAVING = "stopping after this update and saving a checkpoint"
"""Message of a learner on Ctrl-C; see `Interruptible.message`."""


class Interruptible:
    """Turns the first SIGINT within the block into a flag and the second into KeyboardInterrupt.

    Python delivers signals to the main thread only: in another thread the block changes nothing and
    the flag stays False.

    Example:
        with Interruptible(SAVING) as interrupt:
            while step < budget and not interrupt.requested:
                step += update()
        checkpoints.save(step, state)
    """

    def __init__(self, text: str = "stopping") -> None:
        """`text` names the effect of the first Ctrl-C, such as `SAVING`, and is printed then."""
        self.requested = False
        """Whether a stop was requested; read it once per update."""
        self._message = text
        self._at_once = False
        self._installed = False

    @contextlib.contextmanager
    def message(self, text: str) -> Iterator[None]:
        """Within the block the first Ctrl-C prints this text."""
        before, self._message = self._message, text
        try:
            yield
        finally:
            self._message = before

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block the first Ctrl-C sets the flag and raises KeyboardInterrupt too.

        For work that takes long and saves nothing before its end.
        """
        before, self._at_once = self._at_once, True
        try:
            yield
        finally:
            self._at_once = before

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            # None stands for a handler that was not installed from Python and cannot be put back.
            self._previous = signal.getsignal(signal.SIGINT) or signal.default_int_handler
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)
            self._installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise UserInterrupt
        self.requested = True
        if self._at_once:
            raise UserInterrupt
        # print() may be interrupted by this very handler in the middle of its buffer; a bare write may not.
        os.write(2, f"\n{self._message}; press Ctrl-C again to stop at once\n".encode())
