"""The Gramian of all ranks' samples, from rows that no rank keeps."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch

from mtrl.errors import RankError, UnsupportedError
from mtrl.reducer import Reducer, Sums

from .rows import gramian_of

_CODES = 2**20


class RankBlocks:
    """Takes rows piece by piece and adds them over ranks a block at a time, each for its part of the Gramian.

    Every block has the same size, whatever the pieces, so that a rank that failed can still take its part in
    the next one.
    """

    def __init__(
        self, reducer: Reducer, portion: torch.Tensor, like: torch.Tensor, block_mb: float, memory_mb: float
    ) -> None:
        """`portion` [K] is what this rank's rows count, `like` a tensor of the rows' kind and device;
        `block_mb` is the size of a block, and `memory_mb` that of the largest piece.
        """
        self._reducer, self._portion, self._tasks = reducer, portion, len(portion)
        kind = torch.float32 if like.dtype in (torch.bfloat16, torch.float16) else like.dtype
        self._memory_mb = memory_mb
        columns = int(min(block_mb, memory_mb) * 2**20) // (self._tasks * kind.itemsize)
        self._block = torch.zeros(self._tasks, max(1, columns), dtype=kind, device=like.device)
        self._filled = 0
        self._code = 0
        self._broken = False
        self._total = torch.zeros(self._tasks, self._tasks, dtype=torch.float64, device=like.device)

    def add(self, name: str, rows: torch.Tensor) -> None:
        """Rows [K, ...] of a part of the parameter `name`.

        Raises UnsupportedError for more than `memory_mb`.
        """
        size_mb = rows.numel() * rows.element_size() / 2**20
        if size_mb > self._memory_mb:
            raise UnsupportedError(
                f"the rows of {name} take {size_mb:.3g} MB at once, over {self._reducer.size} ranks; "
                f"raise gradients.memory_mb={self._memory_mb:g}, or take a method that needs no rows"
            )
        flat = rows.reshape(self._tasks, -1).to(self._block.dtype)
        flat = flat * self._portion.to(flat).unsqueeze(1)
        self._code = zlib.crc32(f"{name} {flat.shape[1]}".encode(), self._code)
        while flat.shape[1]:
            room = self._block.shape[1] - self._filled
            part, flat = flat[:, :room], flat[:, room:]
            self._block[:, self._filled : self._filled + part.shape[1]] = part
            self._filled += part.shape[1]
            if self._filled == self._block.shape[1]:
                self._flush()

    def finish(self) -> torch.Tensor:
        """[K, K] float64 on the processor."""
        self._block[:, self._filled :] = 0.0
        self._code = zlib.crc32(b"end", self._code)
        self._flush()
        return self._total.cpu()

    def fail(self, error: Exception) -> None:
        """Raises an error of this rank on all of them; at once where it came from the others."""
        if self._broken:
            raise error

        def make() -> Sums:
            raise error

        self._sums(make)

    def _flush(self) -> None:
        code = float(self._code % _CODES)
        place = torch.tensor([code, code**2], dtype=torch.float64)
        found = self._sums(lambda: {"rows": self._block, "place": place})
        if self._reducer.size * found["place"][1] != found["place"][0] ** 2:
            self._broken = True
            raise RankError(
                "the ranks found different parameters shared by the tasks, so that their Gramians cannot be "
                "streamed; raise gradients.memory_mb so that all rows fit"
            )
        self._total += gramian_of([found["rows"]], self._tasks)
        self._filled = 0

    def _sums(self, make: Callable[[], Sums]) -> Sums:
        like = {"rows": (self._block.shape, self._block.dtype), "place": ((2,), torch.float64)}
        broken, self._broken = self._broken, True
        found = self._reducer.sums(make, like)
        self._broken = broken
        return found
