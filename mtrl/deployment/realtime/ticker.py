"""A loop's clock with absolute deadlines, and protection from garbage collection and low priority."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_LOCK_ALL = 3
"""MCL_CURRENT | MCL_FUTURE of mlockall(2)."""
_STEAL = 8
"""Field of a `cpu` line of /proc/stat that counts steal time in clock ticks (proc(5)), after the label."""


class Ticker:
    """Wakes a loop at scheduled + 1, 2, 3 ... periods, and counts what came too late.

    Tick n begins at scheduled_n = scheduled_0 + n periods. It misses its deadline when its work is
    finished after scheduled_n + one period, that is, after the next tick should have begun; a tick
    that never runs because an earlier one overran it is a miss too.
    """

    def __init__(
        self,
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.period_s = period_s
        self.scheduled = 0.0
        """When the current tick was scheduled; the next follows one period later. Set it to follow another
        process's schedule."""
        self.ticks = 0
        """Periods that passed: ticks that ran plus ticks that were skipped."""
        self.misses = 0
        """Periods whose work was not done when the next one began, skipped ones among them."""
        self.skipped = 0
        """Periods that never ran because an earlier one took too long."""
        self._clock = clock
        self._sleep = sleep

    def start(self, first: float) -> None:
        """Schedules the first tick at `first`, in seconds of the clock."""
        self.scheduled = first - self.period_s

    def wait(self) -> float:
        """Sleeps until the next tick and returns its scheduled time; returns at once when it is past."""
        self.scheduled += self.period_s
        while (remaining := self.scheduled - self._clock()) > 0:
            self._sleep(remaining)
        return self.scheduled

    def finish(self, at: float, skipped: int = 0) -> bool:
        """Ends the current tick at `at`, after `skipped` ticks that never ran; returns whether it missed."""
        late = at > self.scheduled + self.period_s
        self.ticks += 1 + skipped
        self.skipped += skipped
        self.misses += skipped + late
        return late


@contextlib.contextmanager
def realtime_section(priority: int = 0, alone: bool = False) -> Iterator[bool]:
    """Runs the block without garbage collection and, for `priority` 1 to 99, under SCHED_FIFO.

    `alone`: with the priority, keeps the process's memory from being paged out, and the thread on the last of
    the processors that it may use. Yields whether everything was granted; where the system refuses the
    priority, the loop runs at normal priority. The loop must sleep every tick: a FIFO thread that never does
    is throttled for tens of milliseconds.
    """
    raised = granted = False
    processors: set[int] = set()
    if priority > 0:
        # some systems have no such call, most users no right to it
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            raised = granted = True
    if raised and alone:
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(processors)})
        granted = ctypes.CDLL(None).mlockall(_LOCK_ALL) == 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield granted
    finally:
        gc.enable()
        gc.unfreeze()
        if raised:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if processors:
            os.sched_setaffinity(0, processors)
            ctypes.CDLL(None).munlockall()


def stolen_seconds(source: Path = Path("/proc/stat")) -> float:
    """CPU steal time of this machine since boot (proc(5)), in seconds summed over processors.

    0 where the system does not report it. No priority inside a virtual machine protects from it.
    """
    try:
        fields = source.read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(fields[_STEAL]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
