"""A loop's clock: absolute deadlines, so that a late tick never shifts the ones after it."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LoopStatistics:
    """How a loop kept time."""

    ticks: int
    """Periods that passed: ticks that ran plus ticks that were skipped."""
    misses: int
    """Periods whose work was not done when the next one began, skipped ones among them."""
    skipped: int
    """Periods that never ran because an earlier one took too long."""
    lateness_us: tuple[float, float, float]
    """Median, 99th percentile and maximum of (wake-up - scheduled time), in microseconds."""

    @property
    def miss_fraction(self) -> float:
        """Misses per tick, 0 to 1."""
        return self.misses / self.ticks if self.ticks else 0.0


class Ticker:
    """Wakes a loop at scheduled + 1, 2, 3 ... periods, and counts what came too late.

    Tick n begins at scheduled_n = scheduled_0 + n periods. It misses its deadline when its work is
    finished after scheduled_n + one period, that is, after the next tick should have begun; a tick
    that never runs because an earlier one overran it is a miss too. `realign` moves the schedule to
    a peer's, so that two processes keep one phase.
    """

    def __init__(
        self,
        period_s: float,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`capacity`: wake-ups whose lateness is kept; later ones are counted only."""
        self.period_s = period_s
        self.scheduled = 0.0
        self._clock = clock
        self._sleep = sleep
        self._lateness = np.zeros(capacity)
        self._woken = 0
        self._ticks = 0
        self._misses = 0
        self._skipped = 0

    def start(self, first: float) -> None:
        """Schedules the first tick at `first`, in seconds of the clock."""
        self.scheduled = first - self.period_s

    def wait(self) -> float:
        """Sleeps until the next tick and returns its scheduled time; returns at once when it is past."""
        self.scheduled += self.period_s
        while (remaining := self.scheduled - self._clock()) > 0:
            self._sleep(remaining)
        if self._woken < len(self._lateness):
            self._lateness[self._woken] = -remaining
            self._woken += 1
        return self.scheduled

    def realign(self, scheduled: float) -> None:
        """Says when the current tick was really scheduled; the next follows one period after."""
        self.scheduled = scheduled

    def finish(self, at: float, skipped: int = 0) -> bool:
        """Ends the current tick at `at`, after `skipped` ticks that never ran; returns whether it missed."""
        late = at > self.scheduled + self.period_s
        self._ticks += 1 + skipped
        self._skipped += skipped
        self._misses += skipped + late
        return late

    def statistics(self) -> LoopStatistics:
        """Counts and lateness so far."""
        lateness = self._lateness[: self._woken] * 1e6
        median, high = np.percentile(lateness, (50, 99)) if self._woken else (0.0, 0.0)
        worst = float(lateness.max()) if self._woken else 0.0
        return LoopStatistics(self._ticks, self._misses, self._skipped, (float(median), float(high), worst))


@contextlib.contextmanager
def undisturbed(priority: int = 0) -> Iterator[bool]:
    """Runs a loop without garbage collection and, for `priority` 1 to 99, under SCHED_FIFO.

    Yields whether the priority was granted; a system that refuses it is served at normal priority.
    The loop must sleep every tick: a FIFO thread that never does is throttled for tens of milliseconds.
    """
    granted = priority > 0 and _request_fifo(priority)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield granted
    finally:
        gc.enable()
        gc.unfreeze()
        if granted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _request_fifo(priority: int) -> bool:
    if not hasattr(os, "sched_setscheduler"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    return True
