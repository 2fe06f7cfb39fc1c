"""Ctrl-C: a flag first, KeyboardInterrupt second, and the old handler afterwards."""

import signal
import threading

import pytest

from mtrl.training.interrupt import SAVING, Interruptible


def test_the_first_is_a_flag_and_the_second_interrupts(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice() -> None:
        with Interruptible() as interrupt:
            assert not interrupt.requested
            signal.raise_signal(signal.SIGINT)
            assert interrupt.requested
            assert "press Ctrl-C again" in capfd.readouterr().err
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_is_restored_and_a_new_block_starts_afresh() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with Interruptible():
            signal.raise_signal(signal.SIGINT)
        with Interruptible() as interrupt:
            assert not interrupt.requested
        assert seen == []
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_first_is_answered_with_what_it_will_do(capfd: pytest.CaptureFixture[str]) -> None:
    with Interruptible("stopping after this job") as interrupt, interrupt.message(SAVING):
        signal.raise_signal(signal.SIGINT)
    assert "saving a checkpoint; press Ctrl-C again" in capfd.readouterr().err
    with Interruptible("stopping after this job") as interrupt:
        with interrupt.message(SAVING):
            pass
        signal.raise_signal(signal.SIGINT)
    said = capfd.readouterr().err
    assert "stopping after this job; press" in said and "checkpoint" not in said


def test_work_that_keeps_nothing_is_stopped_by_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    with Interruptible() as interrupt:
        with pytest.raises(KeyboardInterrupt), interrupt.at_once():
            signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        assert "press Ctrl-C again" not in capfd.readouterr().err
    with Interruptible() as interrupt:
        with interrupt.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested


def test_another_thread_changes_nothing() -> None:
    before, flags = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interruptible() as interrupt:
            flags.extend([interrupt.requested, signal.getsignal(signal.SIGINT) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False, True]
