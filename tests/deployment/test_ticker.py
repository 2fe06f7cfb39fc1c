"""The schedule under a clock that the test turns."""

from __future__ import annotations

import gc

import pytest

from mtrl.deployment.ticker import Ticker, undisturbed


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
    made = Ticker(0.01, 100, clock, clock.sleep)
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
    assert loop.statistics().misses == 1


def test_skipped_ticks_are_misses() -> None:
    loop = ticker(FakeClock())
    loop.wait()
    loop.finish(100.001, skipped=3)
    statistics = loop.statistics()
    assert (statistics.ticks, statistics.misses, statistics.skipped) == (4, 3, 3)
    assert statistics.miss_fraction == 0.75


def test_realigning_follows_a_peers_schedule() -> None:
    loop = ticker(FakeClock())
    loop.wait()
    loop.realign(100.003)
    assert loop.finish(100.0129) is False
    assert loop.wait() == pytest.approx(100.013)


def test_lateness_is_what_the_clock_says() -> None:
    loop = ticker(FakeClock(overshoot=0.0005))
    for _ in range(10):
        loop.wait()
    median, _, worst = loop.statistics().lateness_us
    # the first tick is due at once and sleeps not at all
    assert median == pytest.approx(500, abs=1)
    assert worst == pytest.approx(500, abs=1)


def test_a_loop_that_is_far_behind_does_not_sleep() -> None:
    clock = FakeClock()
    loop = ticker(clock)
    clock.now = 105.0
    loop.wait()
    assert clock.now == 105.0


def test_the_collector_rests_inside_and_works_after() -> None:
    with undisturbed() as granted:
        assert not gc.isenabled()
        assert granted is False
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
