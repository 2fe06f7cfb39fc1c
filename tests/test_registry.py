"""Plug-ins by name: what is known, what a wrong name says, and what is loaded when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from mtrl import registry
from mtrl.deployment import Robot, RobotConfig
from mtrl.errors import ConfigError, ExistsError, UnknownNameError
from mtrl.tasks import NamedSet, Suite
from mtrl.training import AgentFactory

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
    ("kind", "name", "item", "message"),
    [
        ("suite", "mine", 1, r"suite 'mine' .*mtrl.tasks.Suite; got int, which lacks name, .*expert\(\)$"),
        ("suite", "counter", CounterSuite, r"got the class CounterSuite: register CounterSuite\(\.\.\.\)"),
        ("suite", "mine", CounterSuite(), "suite 'mine' calls itself 'counter'; register it under that name"),
        (
            "agent",
            "mine",
            CounterSuite(),
            r"AgentFactory.* lacks config_class, metrics, needs\(\), extras\(\), build\(\), policy\(\)$",
        ),
        ("robot", "mine", object(), "mtrl.deployment.Robot; got object, which lacks name, module, config$"),
        ("task_set", "mine", ("a/b",), "task set 'mine' is a mtrl.tasks.NamedSet of task names; got tuple"),
        ("policy", "mine", "walk", "policy 'mine' is a function .*; got str"),
        ("suite", "my/counter", CounterSuite(), "without slashes; got 'my/counter'"),
    ],
)
def test_what_would_fail_when_it_is_used_is_refused_when_it_is_registered(
    kind: str, name: str, item: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.register(kind, name, item, replace=True)
    assert name not in registry.names(kind)


def test_what_fits_its_kind_is_registered() -> None:
    robot = Robot(name="crane", module="cranes", config=RobotConfig())
    for kind, name, item in (("task_set", "few", NamedSet(("a/b",))), ("robot", "crane", robot)):
        registry.register(kind, name, item)
        assert registry.load(kind, name) is item
        registry.unregister(kind, name)
    for name in registry.names("agent"):
        registry.register("agent", name, registry.load("agent", name), replace=True)
        registry.unregister("agent", name)


def test_the_contracts_of_plug_ins_are_those_that_are_checked() -> None:
    for kind, contract in (("suite", Suite), ("agent", AgentFactory)):
        members = {*contract.__annotations__, *(key for key in vars(contract) if not key.startswith("_"))}
        assert {*registry.ATTRIBUTES[kind], *registry.METHODS[kind]} == members


def test_what_a_package_declares_is_replaced_only_on_demand() -> None:
    mine = CounterSuite(name="dmc")
    with pytest.raises(ExistsError, match=r"suite 'dmc' is declared by an installed package.*replace=True"):
        registry.register("suite", "dmc", mine)
    assert registry.suite("dmc") is not mine
    registry.register("suite", "dmc", mine, replace=True)
    try:
        assert registry.suite("dmc") is mine
    finally:
        registry.unregister("suite", "dmc")
    assert registry.suite("dmc") is not mine


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("countre/short", "unknown suite 'countre'; did you mean 'counter'"),
        ("counter/shirt", "unknown task 'counter/shirt'; did you mean 'counter/short'"),
        ("countrs", "unknown task or task set 'countrs'; did you mean 'counters'"),
        ("frames", "did you mean 'counter/frames'"),
    ],
)
def test_a_wrong_name_gets_the_nearest(suite: CounterSuite, requested: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        registry.task_set(requested)


def test_a_task_without_its_suite_is_told_how_tasks_are_named(suite: CounterSuite) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'counter/long'.*A task is named 'suite/task'"):
        registry.task("long")


@pytest.mark.parametrize("requested", ["xyzzy", "dmc/xyzzy"])
def test_where_hundreds_of_tasks_exist_the_command_that_lists_them_is_named(requested: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry.task_set(requested)
    assert "`mtrl tasks" in str(raised.value) and "known:" not in str(raised.value)
    if "/" not in requested:
        assert "mt10" in str(raised.value) and "metaworld" in str(raised.value)


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


def test_a_checkout_wins_over_an_older_installation_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = EntryPoint("sim", "mtrl.no_such_module:ROBOT", "mtrl.robots")
    monkeypatch.setattr(registry, "_installed", lambda group: [stale] if group == "mtrl.robots" else [])
    registry._declared.cache_clear()
    try:
        assert registry.load("robot", "sim").name == "sim"
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
