"""Ctrl-C, SIGTERM and SIGHUP during a flight: noted when they come, raised where the flight can end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from mtrl.faults import Terminated, UserInterrupt, raise_terminated, raise_user_interrupt

_USUAL = (signal.default_int_handler, signal.SIG_DFL, raise_user_interrupt, raise_terminated)


@contextlib.contextmanager
def noted_signals() -> Iterator[Callable[[], None]]:
    """Within the block the signals are noted; the function that it gives raises UserInterrupt or Terminated
    for the first of them.

    Later ones change nothing, so that none interrupts the stop of the robot or the end of the log. A handler
    that is neither Python's own nor ours stays, and outside the main thread nothing changes.
    """
    noted: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in found.items() if here and handler in _USUAL}

    def raise_if_noted() -> None:
        if noted:
            raise UserInterrupt if noted[0] == signal.SIGINT else Terminated(128 + noted[0])

    for number in before:
        signal.signal(number, lambda came, frame: noted.append(came))
    try:
        yield raise_if_noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending_of(error: BaseException) -> str:
    """What a log says about the exception that ended its flight."""
    if isinstance(error, KeyboardInterrupt):
        return "deploy was interrupted (SIGINT)"
    if isinstance(error, Terminated) and isinstance(error.code, int):
        return f"deploy was ended ({signal.Signals(error.code - 128).name})"
    return str(error) or type(error).__name__
