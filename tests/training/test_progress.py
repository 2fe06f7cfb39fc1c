"""Progress: silent for short work, lines without a terminal, a bar with one."""

import io

import pytest
from rich.console import Console

from mtrl.training.progress_display import progress


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(seconds_each: list[float], total: int | None, terminal: bool = False, **fields: float) -> str:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with progress("train", total, console=console, clock=clock) as bar:
        for seconds in seconds_each:
            clock.now += seconds
            bar.advance(**fields)
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_short_work_shows_nothing(terminal: bool) -> None:
    assert run([0.1] * 19, 19, terminal) == ""


def test_a_line_for_every_tenth() -> None:
    lines = run([3.0] * 20, 20, loss=0.123456).splitlines()
    assert lines[0] == "train: 2/20  6 s  loss 0.1235"
    assert lines[-1] == "train: 20/20  60 s  loss 0.1235"
    assert [line.split("  ")[0] for line in lines[:10]] == [f"train: {n}/20" for n in range(2, 22, 2)]


def test_a_line_every_ten_seconds_when_tenths_are_long() -> None:
    lines = run([2.5] * 12, 1000).splitlines()
    assert [line.split("  ")[1] for line in lines] == ["10 s", "20 s", "30 s"]


def test_the_end_is_told_once() -> None:
    assert run([11.0, 1.0], 100).splitlines() == ["train: 1/100  11 s", "train: 2/100  12 s"]
    assert run([11.0, 11.0], 100).splitlines() == ["train: 1/100  11 s", "train: 2/100  22 s"]


def test_quick_tenths_are_not_more_than_one_line_in_two_seconds() -> None:
    assert len(run([0.25] * 40, 40).splitlines()) <= 6


def test_an_unknown_end() -> None:
    assert run([11.0], None).splitlines()[0] == "train: 1  11 s"


def test_a_bar_on_a_terminal() -> None:
    text = run([3.0, 3.0], 2, terminal=True, loss=0.5)
    assert "train" in text
    assert "2/2" in text
    assert "loss 0.5" in text


def test_bars_nest_and_an_error_passes_through() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)

    def nested() -> None:
        with (
            progress("outer work", 2, console=console, clock=clock) as outer,
            progress("inner work", 2, console=console, clock=clock) as inner,
        ):
            clock.now += 5
            outer.advance()
            inner.advance()
            raise RuntimeError("inner")

    with pytest.raises(RuntimeError, match="inner"):
        nested()
    assert "outer work" in out.getvalue()
    assert "inner work" in out.getvalue()
