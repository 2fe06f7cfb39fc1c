"""The scale of each task's rewards, from the largest discounted return it has shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.rollout import Fragment

SMALLEST = 1e-3
"""Floor of the largest return, for a task that has not paid anything yet."""


class RewardScale:
    """Tracks G_t = r_t + gamma G_{t-1} within each episode, and the largest size it ever had per task.

    Dividing rewards by (largest size / value_range) puts values into [-value_range, value_range]. After
    BRC (Nauman et al. 2025, section 4), without its entropy term, since the bonus is no part of our
    target.
    """

    def __init__(self, task_count: int, discount: float, value_range: float) -> None:
        """Nothing seen yet."""
        self.largest = np.zeros(task_count, dtype=np.float64)
        self._discount, self._value_range = discount, value_range
        self._running: dict[tuple[int, int], float] = {}

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """[K], what rewards are divided by."""
        scale = np.maximum(self.largest, SMALLEST) / self._value_range
        return scale.astype(np.float32)

    def add(self, fragment: Fragment) -> None:
        """Follows the episodes of a fragment; fragments of one lane come in order."""
        k, steps = fragment.task_index, len(fragment.reward)
        first = fragment.episode_id[0]
        running = np.array([self._running.pop((k, int(e)), 0.0) for e in first])
        ended = fragment.terminated | fragment.truncated
        largest = self.largest[k]
        for t in range(steps):
            running = fragment.reward[t] + self._discount * running
            largest = max(largest, float(np.abs(running).max()))
            running[ended[t]] = 0.0
        self.largest[k] = largest
        for copy in np.flatnonzero(~ended[-1]):
            self._running[k, int(fragment.episode_id[-1, copy])] = float(running[copy])

    def state_dict(self) -> dict[str, Any]:
        """The largest returns, and the episodes under way."""
        return {"largest": self.largest.copy(), "running": dict(self._running)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.largest[:] = state["largest"]
        self._running = {(int(k), int(e)): float(v) for (k, e), v in state["running"].items()}
