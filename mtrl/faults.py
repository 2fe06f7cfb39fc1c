"""What environments raise, as faults of their task."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import TracebackType

from mtrl.errors import EnvironmentFault, MtrlError


class environment_faults:  # noqa: N801 - a function to its callers; a generator would double a lane's costs
    """Turns what an environment raises inside the block into an EnvironmentFault with its traceback.

    `task` is the task's name; `when` is the phase, or a function that returns it once it is needed. Errors
    of mtrl pass as they are, and so do exceptions of the types `passing`.
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
        if isinstance(error, Exception) and not isinstance(error, (MtrlError, *self._passing)):
            phase = self._when if isinstance(self._when, str) else self._when()
            raise EnvironmentFault(self._task, phase, "".join(traceback.format_exception(error))) from error
