"""Threads that a vector backend may use: the process's processors, or one beside other workers."""

from __future__ import annotations

import os

_told: list[int] = []


def native_threads() -> int:
    """Threads for one vector environment in this process, at least 1."""
    if _told:
        return _told[-1]
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_native_threads(count: int) -> None:
    """Says how many processors are this process's own; a worker has one."""
    _told[:] = [max(1, count)]
