"""Plug-ins by name: what is known, what a wrong name says, and what is loaded when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from mtrl import registry
from mtrl.errors import ConfigError, UnknownNameError

from .synthetic import CounterSuite, counter_suite


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Iterator[CounterSuite]:
    """The counting suite as the only one there is."""
    monkeypatch.setattr(registry, "_declared", lambda kind: {})
    with counter_suite() as found:
        yield found


def test_a_plug_in_is_found_by_name_and_forgotten_again(suite: CounterSuite) -> None:
    assert registry.names("suite") == ("counter",)
    assert registry.suite("counter") is suite
    assert registry.task("counter/short").name == "counter/short"
    registry.unregister("suite", "counter")
    with pytest.raises(UnknownNameError, match="unknown suite 'counter'"):
        registry.suite("counter")


def test_only_known_kinds_are_registered() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'suite'"):
        registry.register("suites", "counter", object())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("countre/short", "unknown suite 'countre'; did you mean 'counter'"),
        ("counter/shirt", "unknown task 'counter/shirt'; did you mean 'counter/short'"),
        ("countrs", "unknown task or task set 'countrs'; did you mean 'counters'"),
        ("frames", "did you mean 'counter/frames'"),
    ],
)
def test_a_wrong_name_gets_the_nearest(suite: CounterSuite, wanted: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        registry.task_set(wanted)


def test_a_task_without_its_suite_is_told_how_tasks_are_named(suite: CounterSuite) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'counter/long'.*A task is named 'suite/task'"):
        registry.task("long")


def test_sets_and_tasks_mix_and_keep_their_order(suite: CounterSuite) -> None:
    assert registry.task_set("counters").names == ("counter/long", "counter/short")
    chosen = registry.task_set(["counter/frames", "counters"])
    assert chosen.names == ("counter/frames", "counter/long", "counter/short")


def test_a_repeated_task_and_an_empty_choice_are_refused(suite: CounterSuite) -> None:
    with pytest.raises(ConfigError, match="repeated: counter/short"):
        registry.task_set(["counters", "counter/short"])
    with pytest.raises(ConfigError, match="tasks is empty"):
        registry.task_set([])


def test_options_reach_all_tasks_of_their_suite(suite: CounterSuite) -> None:
    chosen = registry.task_set("counters", {"counter": {"success_at": 2}})
    assert [task.option("success_at", -1) for task in chosen] == [2, 2]
    with pytest.raises(UnknownNameError, match="unknown suite 'contuer'; did you mean 'counter'"):
        registry.task_set("counters", {"contuer": {"success_at": 2}})


def test_a_task_by_name_loads_no_suite_but_its_own(
    suite: CounterSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_declared", lambda kind: {"broken": "no.such.module:SUITE"})
    assert registry.task_set("counter/short").names == ("counter/short",)
    with pytest.raises(ModuleNotFoundError):
        registry.task_set("counters")


def test_an_installed_plug_in_takes_the_same_road(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("counting", f"{CounterSuite.__module__}:CounterSuite.names", "mtrl.suites")
    monkeypatch.setattr(registry, "_installed", lambda group: [point] if group == "mtrl.suites" else [])
    registry._declared.cache_clear()
    try:
        assert "counting" in registry.names("suite")
        assert registry.load("suite", "counting") is CounterSuite.names
        assert "counting" not in registry.names("agent")
    finally:
        registry._declared.cache_clear()


def test_listing_names_imports_no_plug_in() -> None:
    script = (
        "import sys; from mtrl import registry; print(*registry.names('suite')); "
        "bad = {'mujoco', 'metaworld', 'dm_control', 'ale_py', 'mtrl.envs'} & set(sys.modules); "
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"metaworld", "dmc", "atari"} <= set(done.stdout.split())
