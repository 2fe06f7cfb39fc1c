"""The actions of every copy's running episode, from which a lane is rebuilt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FIRST_CAPACITY = 512
"""Decisions that fit before the memory is doubled; the longest episodes of a game have 27,000."""


class ActionHistory:
    """Rows of actions per copy in one preallocated array [M, capacity, A] (indices: [M, capacity, 1])."""

    def __init__(self, copies: int, width: int, horizon: int) -> None:
        """`width` is A, 0 for a task that acts by index."""
        dtype = np.float32 if width else np.int64
        self._rows = np.zeros((copies, min(horizon, FIRST_CAPACITY), max(width, 1)), dtype=dtype)
        self._lengths = [0] * copies

    def append(self, copy: int, action: npt.NDArray[np.float32] | int) -> None:
        """Remembers one decision of one copy."""
        length = self._lengths[copy]
        if length == self._rows.shape[1]:
            self._grow()
        self._rows[copy, length] = action
        self._lengths[copy] = length + 1

    def clear(self, copy: int) -> None:
        """Forgets the copy's episode."""
        self._lengths[copy] = 0

    def of(self, copy: int) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
        """[T, A] or [T, 1], a copy of the episode's actions so far."""
        found: npt.NDArray[np.float32] | npt.NDArray[np.int64] = self._rows[
            copy, : self._lengths[copy]
        ].copy()
        return found

    def _grow(self) -> None:
        self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)], axis=1)
