"""The Gramian of all ranks' samples, from rows that are added up over ranks and not kept."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch

from mtrl.errors import RankError, UnsupportedError
from mtrl.reducer import Reducer, Sums

from .rows import gramian_of

_CODES = 2**20


class RankBlocks:
    """Adds rows over ranks a block at a time, and each block's part of the Gramian to the total.

    Every block has the same size, whatever the pieces, so that a rank that failed can still contribute to the
    next one.
    """

    def __init__(
        self, reducer: Reducer, portion: torch.Tensor, like: torch.Tensor, block_mb: float, memory_mb: float
    ) -> None:
        """`portion` [K] is this rank's share of every task's samples, `like` a tensor of the rows' type and
        device; `block_mb` is the size of a block, `memory_mb` that of the largest piece.
        """
        self._reducer, self._portion, self._tasks = reducer, portion, len(portion)
        self._memory_mb = memory_mb
        dtype = torch.float32 if like.dtype in (torch.bfloat16, torch.float16) else like.dtype
        columns = int(min(block_mb, memory_mb) * 2**20) // (self._tasks * dtype.itemsize)
        self._block = torch.zeros(self._tasks, max(1, columns), dtype=dtype, device=like.device)
        self._filled, self._code, self._broken = 0, 0, False
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
            free = self._block.shape[1] - self._filled
            part, flat = flat[:, :free], flat[:, free:]
            self._block[:, self._filled : self._filled + part.shape[1]] = part
            self._filled += part.shape[1]
            if self._filled == self._block.shape[1]:
                self._flush()

    def finish(self) -> torch.Tensor:
        """[K, K] float64 on the CPU."""
        self._block[:, self._filled :] = 0.0
        self._code = zlib.crc32(b"end", self._code)
        self._flush()
        return self._total.cpu()

    def fail(self, error: Exception) -> None:
        """Raises an error of this rank on all ranks, or here alone where it came from the others."""

        def make() -> Sums:
            raise error

        make() if self._broken else self._sums(make)

    def _flush(self) -> None:
        # equal numbers, and no others, have R times the sum of squares equal to the square of the sum
        code = float(self._code % _CODES)
        codes = torch.tensor([code, code**2], dtype=torch.float64)
        sums = self._sums(lambda: {"rows": self._block, "codes": codes})
        if self._reducer.size * sums["codes"][1] != sums["codes"][0] ** 2:
            self._broken = True
            raise RankError(
                "the ranks found different parameters shared by the tasks, so that their Gramians cannot be "
                "streamed; raise gradients.memory_mb so that all rows fit"
            )
        self._total += gramian_of([sums["rows"]], self._tasks)
        self._filled = 0

    def _sums(self, make: Callable[[], Sums]) -> Sums:
        like = {"rows": (self._block.shape, self._block.dtype), "codes": ((2,), torch.float64)}
        broken, self._broken = self._broken, True
        sums = self._reducer.sums(make, like)
        self._broken = broken
        return sums
