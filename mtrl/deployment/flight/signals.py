"""Ctrl-C, SIGTERM and SIGHUP during a flight: noted when they come, raised where the flight can end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def noted_signals() -> Iterator[Callable[[], None]]:
    """Within the block the signals are noted; the function that it gives raises for the first of them.

    KeyboardInterrupt stands for SIGINT, SystemExit with 128 and the signal's number for the others. Later
    ones change nothing, so that none interrupts the stop of the robot or the end of the log. A handler that
    is not Python's own stays, and outside the main thread nothing changes.
    """
    noted: list[int] = []
    before: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    taken = threading.current_thread() is threading.main_thread()
    numbers = [number for number, usual in before.items() if taken and signal.getsignal(number) == usual]

    def raise_if_noted() -> None:
        if noted:
            raise KeyboardInterrupt if noted[0] == signal.SIGINT else SystemExit(128 + noted[0])

    for number in numbers:
        signal.signal(number, lambda came, frame: noted.append(came))
    try:
        yield raise_if_noted
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def ending_of(error: BaseException) -> str:
    """What a log says about the exception that ended its flight."""
    if isinstance(error, KeyboardInterrupt):
        return "deploy was interrupted (SIGINT)"
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f"deploy was ended ({signal.Signals(error.code - 128).name})"
    return str(error) or type(error).__name__
