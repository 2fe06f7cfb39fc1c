"""What both Atari backends share: sizes, the ROM files of ale-py, and the stack of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl.errors import UnsupportedError

FRAME_LIMIT = 108_000
"""Emulated frames per episode: 30 minutes of play."""
RAM_SIZE = 128
"""Bytes of an Atari 2600's memory."""
PIXEL_SIZE = 84
"""Height and width of the grey image."""


def rom_path(rom: str) -> Path:
    """The file of a game, by ale-py's name for it; raises UnsupportedError where ale-py lacks it."""
    from ale_py import roms

    path = roms.get_rom_path(rom)
    if path is None:
        raise UnsupportedError(
            f"the installed ale-py holds no ROM {rom!r}; "
            "install it anew: pip install --force-reinstall ale-py"
        )
    return path


class ImageStack:
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
