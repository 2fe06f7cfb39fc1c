"""`mtrl tasks`: every column, sets with their settings, and lines that fit."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping

import pytest
from rich.console import Console

from mtrl import registry
from mtrl.launch.main import main
from mtrl.launch.tasks import FIRST, record_of, score_of, show_sets, show_tasks
from mtrl.tasks import NamedSet, Score, Task

from ..evaluation.samples import task
from ..synthetic import CounterSuite, counter_task

Capture = pytest.CaptureFixture[str]


class VectorCounters(CounterSuite):
    """Counters with backends and experts."""

    has_experts = True
    backend_extras: Mapping[str, str] = {}

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        return ("native", "envpool") if task.action.continuous else ()

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> object:
        raise NotImplementedError


@pytest.fixture
def counters() -> Iterator[None]:
    suite = VectorCounters()
    registry.register("suite", suite.name, suite)
    yield
    registry.unregister("suite", suite.name)


def shown(tasks: list[Task], width: int, *, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show_tasks(tasks, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_record_holds_every_column(counters: None) -> None:
    record = record_of(counter_task("counter/long", horizon=7, success_at=3))
    assert record == {
        "task": "counter/long",
        "observation": "state 5",
        "action": "continuous 4",
        "horizon": 7,
        "rate": "20 Hz",
        "repeat": 2,
        "score": "success",
        "backends": ["python", "native", "envpool"],
        "expert": True,
        "starts": True,
        "rate_hz": 20.0,
        "reward_version": "1",
        "options": {"success_at": 3},
        "protocol_hash": counter_task("counter/long", horizon=7, success_at=3).protocol_hash,
    }
    frames = record_of(counter_task("counter/frames"))
    assert (frames["observation"], frames["action"]) == ("pixels 2x3x3", "discrete 3")
    assert frames["backends"] == ["python"]


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (Score("success"), "success"),
        (Score("return", 0, 1000), "return 0 to 1000"),
        (Score("return", -20.7, 14.6), "return -20.7 to 14.6"),
        (Score("return"), "return, raw"),
    ],
)
def test_a_return_without_a_published_range_is_raw(score: Score, words: str) -> None:
    assert score_of(task("some/task", score)) == words


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_and_names_stay_whole(width: int) -> None:
    names = ["metaworld/button-press-topdown-wall-v3", "metaworld/reach-v3", "dmc/cartpole-swingup"]
    lines = shown([registry.task(name) for name in names], width)
    assert max(map(len, lines)) <= width
    for name in names:
        assert any(name in line.split() for line in lines), name
    text = " ".join(lines)
    for fact in ("state 39", "continuous 4", "500", "80 Hz", "success", "return 0 to 1000", "python"):
        assert fact in text


def test_many_tasks_on_a_terminal_show_the_first_of_each_suite(counters: None) -> None:
    every = [registry.task(name) for name in registry.suite("metaworld").names()] * 3
    every += [counter_task()]
    lines = shown(every, 120)
    assert sum("metaworld/" in line and "more" not in line for line in lines) == FIRST
    assert f"  ... {150 - FIRST} more: mtrl tasks metaworld/" in lines
    assert any("counter/short" in line for line in lines)
    assert sum("metaworld/" in line for line in shown(every, 160, terminal=False)) == 150


def test_sets_are_listed_with_sizes_suites_and_settings() -> None:
    console = Console(file=io.StringIO(), width=120)
    sets = {
        "one": NamedSet(("a/x", "a/y")),
        "two": NamedSet(("a/x", "b/z", "a/y"), {"b": {"observation": "ram", "sticky": 0.0}}),
    }
    show_sets(sets, console)
    assert isinstance(console.file, io.StringIO)
    rows = [line.split(maxsplit=2) for line in console.file.getvalue().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["one", "2"], ["two", "3"]]
    assert rows[2][2].rstrip() == "a, b    b: observation=ram, sticky=0.0"


def test_a_set_of_several_suites_is_listed_with_its_settings(counters: None, capsys: Capture) -> None:
    both = NamedSet(("counter/long", "point/obstacle"), {"counter": {"horizon": 9}})
    registry.register("task_set", "both", both)
    try:
        assert main(["tasks", "both", "--json"]) == 0
        listed = [(one["task"], one["horizon"]) for one in json.loads(capsys.readouterr().out)]
        assert listed == [("counter/long", 9), ("point/obstacle", 100)]
        assert main(["tasks", "both"]) == 0
        assert "counter: horizon=9" in capsys.readouterr().out
    finally:
        registry.unregister("task_set", "both")


def test_no_match_names_the_nearest(capsys: Capture) -> None:
    assert main(["tasks", "mt01"]) == 2
    told = capsys.readouterr().err
    assert "did you mean" in told and "'mt10'" in told
