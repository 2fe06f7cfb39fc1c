"""Stacks of images for observations, and drawing from above without a graphics library."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Disc = tuple[tuple[float, float], float, tuple[int, int, int]]
"""Centre (x, y) and radius in metres, and an RGB colour."""


def draw_discs(
    frame: npt.NDArray[np.uint8],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    discs: Iterable[Disc],
) -> None:
    """Draws discs one over another into `frame` [H, W, 3]; `x` [W] and `y` [H] are its pixels in metres."""
    for centre, radius, colour in discs:
        frame[(x - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 <= radius**2] = colour


class ImageStack:
    """A window over the newest `depth` images of M copies, which slides along an array twice as long.

    Sliding copies images only once in `depth` + 1 steps.
    """

    def __init__(self, copies: int, depth: int, *shape: int) -> None:
        """`copies` is M; `shape` is that of one image."""
        self._depth = depth
        # copies second: what slides is then one block, which NumPy moves without a copy between
        self._images = np.zeros((2 * depth, copies, *shape), dtype=np.uint8)
        self._end = depth

    @property
    def newest(self) -> npt.NDArray[np.uint8]:
        """The latest image of every copy, to write into: [M, *shape]."""
        return self._images[self._end - 1]

    @property
    def window(self) -> npt.NDArray[np.uint8]:
        """The last images, oldest first: [M, depth, *shape]."""
        return self._images[self._end - self._depth : self._end].swapaxes(0, 1)

    def advance(self) -> None:
        """Moves the window on by one image, which is then written to `newest`."""
        if self._end == 2 * self._depth:
            kept = self._depth - 1
            self._images[:kept] = self._images[self._end - kept :]
            self._end = kept
        self._end += 1

    def begin(self, copy: int) -> None:
        """Repeats the newest image of one copy, whose episode begins with it."""
        self._images[self._end - self._depth : self._end - 1, copy] = self._images[self._end - 1, copy]
