"""States arrive in any number format and are kept as float32: what that loses."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import MtrlWarning

OBSERVATIONS = 100
"""Observations of one environment that are compared, each with the one before."""
FEWEST = 10
"""Least changes of an entry from which anything follows."""
HELD = "?bBhHef"
"""Codes of the number formats that float32 holds without loss."""
ROUNDING = 2.0**-46
"""Relative change of a float64 that may be rounding of the simulator, and is not counted."""


class ResolutionCheck:
    """Warns once of the entries of a state most of whose changes vanish in float32, such as a clock of
    1.7e9 seconds, which float32 counts in steps of 128.
    """

    def __init__(self, task: str, size: int) -> None:
        """`size` D of the states of `task`, which the warning names."""
        self._task, self._seen = task, 0
        self._before: npt.NDArray[Any] = np.zeros(size)
        self._changes, self._lost = np.zeros((2, size), dtype=np.int64)

    def observe(self, values: npt.NDArray[Any], state: npt.NDArray[Any]) -> bool:
        """Compares `values` [D] and their `state` in float32 with those before; False after the last."""
        if self._seen and values.dtype.char not in HELD:
            with np.errstate(all="ignore"):
                step = np.abs(np.subtract(values, self._before, dtype=np.float64))
                rounding = 0.0 if values.dtype.kind in "iu" else ROUNDING * np.abs(values)
                changed = step > rounding
                self._lost += changed & (state == self._before.astype(np.float32))
            self._changes += changed
        # an environment may write its next observation into the same array
        self._before = values.copy()
        self._seen += 1
        if self._seen < OBSERVATIONS:
            return True
        lost = np.flatnonzero((self._changes >= FEWEST) & (2 * self._lost > self._changes))
        if len(lost):
            steps = [f"{d} (steps of {np.spacing(np.abs(state[d])):g} near {state[d]:.2g})" for d in lost]
            warnings.warn(
                f"{self._task}: states are kept as float32, which cannot tell most successive values of "
                f"dimension {', '.join(steps)} apart; subtract an offset in the environment, such as the "
                "value at reset, or leave the dimension out",
                MtrlWarning,
                stacklevel=2,
            )
        return False
