"""Threads of a vector backend: all processors of the process, or one in a worker."""

from __future__ import annotations

import os

_limit: list[int] = []


def allowed_processors() -> int:
    """Processors of this process's affinity, before any quota."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_threads() -> int:
    """Threads for one vector environment in this process, at least 1."""
    return _limit[-1] if _limit else allowed_processors()


def set_native_threads(count: int) -> None:
    """Limits this process to `count` processors; a worker has one."""
    _limit[:] = [max(1, count)]
