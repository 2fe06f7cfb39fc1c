"""Memory shared by two processes: one writer, many readers, no lock that a dead process could keep.

The memory is anonymous and travels as an inherited file descriptor, so nothing is left behind in
/dev/shm however the processes end.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import zlib

import numpy as np
import numpy.typing as npt

from mtrl.errors import ResourceError

Float64 = npt.NDArray[np.float64]
_HEADER = 2
_ATTEMPTS = 1000


class SharedBlock:
    """A fixed number of 8-byte words, zero at first, shared through a file descriptor."""

    def __init__(self, descriptor: int, words: int) -> None:
        """Maps `words` words of an open descriptor, which `close` closes."""
        self.descriptor = descriptor
        self.words = words
        self._map = mmap.mmap(descriptor, words * 8)
        self.integers: npt.NDArray[np.int64] = np.frombuffer(self._map, dtype=np.int64)
        """The words as integers. An aligned word is written in one piece."""
        self.floats: npt.NDArray[np.float64] = np.frombuffer(self._map, dtype=np.float64)
        """The same words as floats."""

    @staticmethod
    def create(words: int) -> SharedBlock:
        """A new block of zeros; raises ResourceError when there is no memory for it."""
        try:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("mtrl")
            else:
                with tempfile.TemporaryFile() as file:
                    descriptor = os.dup(file.fileno())
            os.ftruncate(descriptor, words * 8)
        except OSError as error:
            raise ResourceError(f"no shared memory for {words * 8} bytes: {error}") from error
        return SharedBlock(descriptor, words)

    def store(self, content: bytes) -> None:
        """Writes bytes at the beginning."""
        self._map[: len(content)] = content

    def load(self, length: int) -> bytes:
        """The first `length` bytes."""
        return self._map[:length]

    def close(self) -> None:
        """Closes the descriptor; the memory goes when its last array does."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Seqlock:
    """The newest record of one writer, readable at any moment without stopping it.

    The sequence word is odd while a record is being written (Lameter 2005, "Effective
    synchronization on Linux/NUMA systems", section on sequence locks). A checksum stands in for the
    memory barriers that Python cannot issue, so that a torn read is refused on weakly ordered
    processors too.
    """

    def __init__(self, block: SharedBlock) -> None:
        """The record takes the whole block but two words: the stamp, then the values."""
        self._words = block.integers
        self._record = block.floats[_HEADER:]
        self.width = len(self._record) - 1
        self._copy = np.zeros(len(self._record))

    @staticmethod
    def words(width: int) -> int:
        """Words that a block needs for a record of `width` values."""
        return _HEADER + 1 + width

    @property
    def sequence(self) -> int:
        """Changes with every record; cheap to poll. 0 before the first."""
        return int(self._words[0]) // 2

    def write(self, stamp: float, values: npt.NDArray[np.float64]) -> None:
        """Publishes `values` [width] with their time in seconds of time.monotonic; one writer only."""
        sequence = int(self._words[0]) | 1
        self._words[0] = sequence
        self._record[0] = stamp
        self._record[1:] = values
        self._words[1] = zlib.crc32(self._record.data)
        self._words[0] = sequence + 1

    def read(self, out: npt.NDArray[np.float64], attempts: int = _ATTEMPTS) -> float | None:
        """Copies the newest record into `out` [width] and returns its stamp.

        None, and `out` untouched, when there is none yet or its writer stood in the middle of writing for as
        long as `attempts` reads take, some microseconds each.
        """
        for _ in range(attempts):
            before = int(self._words[0])
            if before == 0:
                return None
            self._copy[:] = self._record
            checksum = int(self._words[1])
            whole = before % 2 == 0 and int(self._words[0]) == before
            if whole and zlib.crc32(self._copy.data) == checksum:
                out[:] = self._copy[1:]
                return float(self._copy[0])
        return None
