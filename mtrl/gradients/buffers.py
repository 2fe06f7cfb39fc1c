"""Memory for rows that are written anew at every step."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch

HUGE_PAGE = 2**21
"""Bytes, on x86 and on most of ARM."""


def row_buffer(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Uninitialised, of the type and on the device of `like`; in huge pages where Linux grants them.

    K rows of a layer span hundreds of small pages, and every step walks through all of them: more than a
    processor remembers the addresses of.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    # a mapping is shared unless told otherwise: of small pages, and written to by processes forked from here
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them; small pages serve too
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    return torch.frombuffer(memory, dtype=like.dtype, count=math.prod(shape), offset=start).view(shape)
