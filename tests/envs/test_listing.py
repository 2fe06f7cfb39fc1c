"""Names, sets, options and catalogues: everything that is known without a simulator."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

import mtrl.envs
from mtrl import registry
from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.tasks import Option

SUITES = ("metaworld", "dmc", "atari", "gym", "maze2d", "point")
EXAMPLES = {
    "metaworld": "metaworld/reach-v3",
    "dmc": "dmc/cartpole-swingup",
    "atari": "atari/Breakout",
    "gym": "gym/CartPole-v1",
    "maze2d": "maze2d/umaze",
    "point": "point/obstacle",
}
OTHER_VALUES: Mapping[str, Mapping[str, Option]] = {
    "metaworld": {"reward_version": "v1", "horizon": 100, "action_repeat": 2},
    "dmc": {
        "action_repeat": 2,
        "observation": "both",
        "pixel_size": 64,
        "frame_stack": 4,
        "colour": "grey",
        "camera": "lookatcart",
    },
    "atari": {
        "frame_skip": 2,
        "sticky": 0.0,
        "noop_max": 1,
        "frame_stack": 1,
        "action_set": "minimal",
        "observation": "ram",
    },
    "gym": {"action_repeat": 2, "horizon": 100, "score": "success", "score_low": -5.0, "score_high": 5.0},
    "maze2d": {"reward": "dense"},
    "point": {},
}
"""Every option of every suite with a value that is not its default."""
CASES = [(suite, key, value) for suite, values in OTHER_VALUES.items() for key, value in values.items()]


def test_listing_and_describing_every_task_imports_no_simulator() -> None:
    script = (
        "import sys; from mtrl import registry; sets = registry.named_sets(); "
        "tasks = [registry.task(name) for name in registry.all_task_names()]; print(len(tasks), *sets); "
        "heavy = {'mujoco', 'metaworld', 'dm_control', 'ale_py', 'gymnasium', 'cv2', 'torch'}; "
        "bad = heavy & set(sys.modules); "
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, *sets = done.stdout.split()
    assert int(count) >= 50 + 51 + 100 + 21 + 4 + 1
    asked_for = {"mt10", "mt25", "mt50", "dmc18", "atari26", "atari-ram", "mixed"}
    assert asked_for <= set(sets)


@pytest.mark.parametrize("suite", SUITES)
def test_every_listed_task_can_be_described(suite: str) -> None:
    loaded = registry.suite(suite)
    assert loaded.name == suite and loaded.supports_starts
    assert loaded.environment_megabytes > 0
    assert len(set(loaded.names())) == len(loaded.names())
    hashes = set()
    for name in loaded.names():
        task = loaded.task(name)
        assert (task.name, task.suite) == (name, suite)
        hashes.add(task.protocol_hash)
    assert len(hashes) == len(loaded.names())
    for members in loaded.sets().values():
        assert set(members) <= set(loaded.names())
        assert len(set(members)) == len(members)


@pytest.mark.parametrize("suite", SUITES)
def test_every_option_is_covered_here(suite: str) -> None:
    options = registry.suite(suite).options
    assert OTHER_VALUES[suite].keys() == options.keys()
    assert all(options[key].default != value for key, value in OTHER_VALUES[suite].items())


@pytest.mark.parametrize(("suite", "key", "value"), CASES)
def test_an_option_changes_the_protocol(suite: str, key: str, value: Option) -> None:
    usual, changed = registry.task(EXAMPLES[suite]), registry.task(EXAMPLES[suite], {key: value})
    assert changed.protocol_hash != usual.protocol_hash
    assert changed.option(key, "absent") == value
    # the default is the same protocol whether it is spelled out or not
    default = importlib.import_module(f"mtrl.envs.{suite}.suite").OPTIONS[key].default
    assert usual.option(key, default) == default
    assert registry.task(EXAMPLES[suite], {key: default}).protocol_hash == usual.protocol_hash


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("metaworld/reach-v2", "metaworld/reach-v3"),
        ("metaworld/pick-plac-v3", "metaworld/pick-place-v3"),
        ("dmc/cartpole_swingup", "dmc/cartpole-swingup"),
        ("atari/boxing", "atari/Boxing"),
        ("point/obstacles", "point/obstacle"),
        ("metaword/reach-v3", "metaworld"),
    ],
)
def test_an_unknown_task_is_answered_with_the_nearest_names(asked: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean") as raised:
        registry.task(asked)
    assert nearest in raised.value.nearest


@pytest.mark.parametrize(
    ("suite", "asked", "nearest"),
    [
        ("metaworld", "reward", ["reward_version"]),
        ("dmc", "action_repeats", ["action_repeat"]),
        ("atari", "frameskip", ["frame_skip"]),
        ("point", "speed", []),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_names(
    suite: str, asked: str, nearest: list[str]
) -> None:
    with pytest.raises(UnknownNameError, match=f"option of suite '{suite}' '{asked}'") as raised:
        registry.task(EXAMPLES[suite], {asked: 1})
    assert raised.value.nearest[:1] == nearest


@pytest.mark.parametrize(
    ("suite", "key", "value", "allowed"),
    [
        ("metaworld", "horizon", 501, "1 to 500"),
        ("metaworld", "horizon", 0, "1 to 500"),
        ("metaworld", "reward_version", "v3", "one of v2, v1"),
        ("dmc", "action_repeat", 0, "1 to 16"),
        ("dmc", "action_repeat", 17, "1 to 16"),
        ("dmc", "observation", "ram", "one of state, pixels, both"),
        ("dmc", "pixel_size", 481, "16 to 480"),
        ("dmc", "colour", "gray", "one of rgb, grey"),
        ("atari", "frame_skip", 0, "1 to 16"),
        ("atari", "sticky", 1.01, "0.0 to 1.0"),
        ("atari", "sticky", float("nan"), "0.0 to 1.0"),
        ("atari", "noop_max", 61, "1 to 60"),
        ("atari", "frame_stack", -1, "1 to 16"),
        ("atari", "action_set", "some", "one of full, minimal"),
        ("atari", "observation", "rgb", "one of pixels, ram, both"),
    ],
)
def test_a_value_out_of_range_is_answered_with_the_range(
    suite: str, key: str, value: Option, allowed: str
) -> None:
    with pytest.raises(OutOfRangeError, match=f"expected {allowed}") as raised:
        registry.task(EXAMPLES[suite], {key: value})
    assert f"{key}={value}" in str(raised.value)


@pytest.mark.parametrize(
    ("suite", "key", "value", "kind"),
    [
        ("metaworld", "horizon", 2.5, "a whole number"),
        ("metaworld", "reward_version", 2, "text"),
        ("dmc", "action_repeat", True, "a whole number"),
        ("atari", "sticky", "0.25", "a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(suite: str, key: str, value: Option, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"tasks\.options\.{suite}\.{key} is {kind}; got {value!r}"):
        registry.task(EXAMPLES[suite], {key: value})


def test_a_whole_number_serves_where_a_fraction_is_expected() -> None:
    one, other = (registry.task("atari/Pong", {"sticky": value}) for value in (0, 0.0))
    assert one.protocol_hash == other.protocol_hash


@pytest.mark.parametrize("name", ["dmc/walker-run", "atari/Pong"])
def test_a_task_without_expert_says_so(name: str) -> None:
    task = registry.task(name)
    with pytest.raises(UnsupportedError, match=f"{name} has no scripted expert"):
        registry.suite(task.suite).expert(task)


@pytest.mark.parametrize(
    ("suite", "package"), [("metaworld", "metaworld"), ("dmc", "dm_control"), ("atari", "ale-py")]
)
def test_a_catalogue_is_of_the_installed_version(suite: str, package: str) -> None:
    path = Path(mtrl.envs.__path__[0]) / suite / "catalogue.json"
    assert json.loads(path.read_text(encoding="utf-8"))["package"] == f"{package} {version(package)}"
