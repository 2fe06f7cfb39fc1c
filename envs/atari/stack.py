"""The last pictures of some copies of a game, kept in place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .suite import PIXEL_SIZE


class PictureStack:
    """A window over the newest `depth` pictures of M copies, which slides along a longer array.

    Sliding moves no picture but once in `depth` + 1 steps.
    """

    def __init__(self, copies: int, depth: int) -> None:
        """`copies` is M."""
        self._depth = depth
        # copies second: what slides is then one block, which NumPy moves without a copy between
        self._pictures = np.zeros((2 * depth, copies, PIXEL_SIZE, PIXEL_SIZE), dtype=np.uint8)
        self._end = depth

    @property
    def newest(self) -> npt.NDArray[np.uint8]:
        """The latest picture of every copy, to write into: [M, 84, 84]."""
        return self._pictures[self._end - 1]

    @property
    def window(self) -> npt.NDArray[np.uint8]:
        """The last pictures, oldest first: [M, depth, 84, 84]."""
        return self._pictures[self._end - self._depth : self._end].swapaxes(0, 1)

    def advance(self) -> None:
        """Makes room for the next picture of every copy; `newest` is to be written then."""
        if self._end == 2 * self._depth:
            kept = self._depth - 1
            self._pictures[:kept] = self._pictures[self._end - kept :]
            self._end = kept
        self._end += 1

    def begin(self, copy: int) -> None:
        """Repeats the newest picture of one copy, whose episode begins with it."""
        self._pictures[self._end - self._depth : self._end - 1, copy] = self._pictures[self._end - 1, copy]
