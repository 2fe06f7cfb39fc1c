"""MuJoCo's own reset of an unstable simulation, which observations and rewards do not show."""

from __future__ import annotations

import mujoco
import numpy as np

FIRST = int(mujoco.mjtWarning.mjWARN_BADQPOS)
LAST = int(mujoco.mjtWarning.mjWARN_BADCTRL)
"""Of positions, velocities, accelerations and controls that are not finite or far too large."""


class StabilityCheck:
    """Says whether MuJoCo found a simulation unstable since its data were last reset.

    MuJoCo answers such a state with a reset of its own in the middle of a step, goes on from the model's
    first state, and counts a warning; `mj_resetData` clears the counts. The check reads them in place.
    """

    def __init__(self, data: mujoco.MjData) -> None:
        """Of a simulation whose `data` stay the same object."""
        self._data = data
        counts = data.warning.number[FIRST : LAST + 1]
        # ten times faster to compare than arrays
        self._counts, self._none = memoryview(counts), memoryview(np.zeros_like(counts))

    @property
    def broken(self) -> bool:
        """Whether a warning was counted."""
        return self._counts != self._none

    @property
    def reason(self) -> str:
        """What was found unstable, in words."""
        counts = self._data.warning.number
        names = [mujoco.mjtWarning(kind).name for kind in range(FIRST, LAST + 1) if counts[kind]]
        return f"MuJoCo found the simulation unstable and reset it by itself: {', '.join(names)}"
