"""Ctrl-C asks a run to stop after the current update; a second one stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_NOTICE = b"\nstopping after this update and saving a checkpoint; press Ctrl-C again to stop at once\n"


class Interruptible:
    """Turns the first SIGINT within the block into a flag and the second into KeyboardInterrupt.

    Python delivers signals to the main thread only: in another thread the block changes nothing and
    the flag stays False.

    Example:
        with Interruptible() as interrupt:
            while step < budget and not interrupt.requested:
                step += update()
        checkpoints.save(step, state)
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether a stop was asked for; read it once per update."""
        self._installed = False

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
            raise KeyboardInterrupt
        self.requested = True
        # print() may be interrupted by this very handler in the middle of its buffer; a bare write may not.
        os.write(2, _NOTICE)
