"""What environments raise, as faults of their task, and what signals raise, which is none."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import NoReturn

from mtrl.errors import EnvironmentFault, MtrlError


class ContractViolation(Exception):
    """An environment returned what it may not, or became unstable; the text says which."""


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C, as our handlers of SIGINT raise it; a KeyboardInterrupt of another class is a plug-in's."""


class Terminated(SystemExit):
    """SIGTERM, as our handler of it raises it; a SystemExit of another class is a plug-in's."""


def raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGTERM, which lets what is open be closed."""
    raise Terminated(128 + number)


def raise_user_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGINT."""
    raise UserInterrupt


@contextlib.contextmanager
def user_interrupts() -> Iterator[None]:
    """Within the block Ctrl-C raises UserInterrupt, where it would raise KeyboardInterrupt."""
    ours = threading.current_thread() is threading.main_thread() and _is_plain()
    if ours:
        signal.signal(signal.SIGINT, raise_user_interrupt)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_plain() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


class environment_faults:  # noqa: N801 - a function to its callers; a generator would double a lane's costs
    """Turns what an environment raises inside the block into an EnvironmentFault with its traceback, and a
    ContractViolation into one that says in plain words what was violated.

    `task` is the task's name; `when` is the phase, or a function that returns it once it is needed. Errors
    of mtrl, Ctrl-C and SIGTERM pass as they are, and so do other exceptions of the types `passing`.
    SystemExit, KeyboardInterrupt and the like of the environment's own are faults as any other.
    """

    def __init__(
        self, task: str, when: str | Callable[[], str], passing: tuple[type[Exception], ...] = ()
    ) -> None:
        self._task, self._when, self._passing = task, when, passing

    def __enter__(self) -> None:
        """May be entered again after it was left."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        plain = isinstance(error, ContractViolation)
        if isinstance(error, (MtrlError, UserInterrupt, Terminated, *self._passing)) and not plain:
            return
        # without a handler of ours, as in a notebook, Ctrl-C cannot be told from a KeyboardInterrupt
        if isinstance(error, KeyboardInterrupt) and _is_plain():
            return
        phase = self._when if isinstance(self._when, str) else self._when()
        detail = str(error) if plain else "".join(traceback.format_exception(error))
        raise EnvironmentFault(self._task, phase, detail) from error
