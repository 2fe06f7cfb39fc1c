"""The schedule under a clock that the test sets."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from mtrl.deployment.realtime.ticker import Ticker, realtime_section, stolen_seconds


class FakeClock:
    """Time that passes only by sleeping, each sleep `overshoot` too long."""

    def __init__(self, overshoot: float = 0.0) -> None:
        self.now = 100.0
        self.overshoot = overshoot

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.overshoot


def ticker(clock: FakeClock) -> Ticker:
    made = Ticker(0.01, clock, clock.sleep)
    made.start(100.0)
    return made


def test_a_late_wake_up_does_not_shift_later_ticks() -> None:
    clock = FakeClock(overshoot=0.002)
    loop = ticker(clock)
    scheduled = [loop.wait() for _ in range(5)]
    assert scheduled == pytest.approx([100.0, 100.01, 100.02, 100.03, 100.04])
    assert clock.now == pytest.approx(100.042)


def test_work_that_outlasts_the_period_is_a_miss_and_the_schedule_stands() -> None:
    clock = FakeClock()
    loop = ticker(clock)
    late = []
    for work in (0.004, 0.0101, 0.004, 0.004):
        loop.wait()
        clock.now += work
        late.append(loop.finish(clock.now))
    assert late == [False, True, False, False]
    assert clock.now == pytest.approx(100.034)
    assert loop.misses == 1


def test_skipped_ticks_are_misses() -> None:
    loop = ticker(FakeClock())
    loop.wait()
    loop.finish(100.001, skipped=3)
    assert (loop.ticks, loop.misses, loop.skipped) == (4, 3, 3)


def test_realigning_follows_a_peers_schedule() -> None:
    loop = ticker(FakeClock())
    loop.wait()
    loop.scheduled = 100.003
    assert loop.finish(100.0129) is False
    assert loop.wait() == pytest.approx(100.013)


def test_a_loop_that_is_far_behind_does_not_sleep() -> None:
    clock = FakeClock()
    loop = ticker(clock)
    clock.now = 105.0
    loop.wait()
    assert clock.now == 105.0


def test_the_collector_rests_inside_and_works_after() -> None:
    with realtime_section() as granted:
        assert not gc.isenabled()
        assert granted is False
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_stolen_ticks_become_seconds(tmp_path: Path) -> None:
    source = tmp_path / "stat"
    # user nice system idle iowait irq softirq steal guest guest_nice, as in proc(5)
    source.write_text("cpu  100 1 200 3000 4 5 6 250 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert stolen_seconds(source) == 250 / os.sysconf("SC_CLK_TCK")


def test_a_system_that_reports_none_counts_as_none(tmp_path: Path) -> None:
    assert stolen_seconds(tmp_path / "missing") == 0.0
    (tmp_path / "old").write_text("cpu 1 2 3\n")
    assert stolen_seconds(tmp_path / "old") == 0.0
