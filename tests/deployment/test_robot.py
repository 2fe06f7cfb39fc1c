"""The site's configuration, its YAML, and what is in force when policy and site disagree."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mtrl import registry
from mtrl.deployment import Limits, Manifest, RobotConfig, TaskEntry
from mtrl.errors import ConfigError, OutOfRangeError

ROOT = Path(__file__).parents[2]


TIMES = ("stale_limit_ms", "inference_deadline_ms", "command_timeout_ms", "soft_start_s", "startup_timeout_s")


def entry(name: str, limits: Limits | None = None) -> TaskEntry:
    return TaskEntry(name, 0, 39, 4, 80.0, "0" * 16, limits=limits or Limits())


def manifest(of: TaskEntry, **changes: float) -> Manifest:
    return Manifest((of,), state_size=39, action_size=4, **changes)  # type: ignore[arg-type]


def test_the_yaml_of_the_simulated_robot_is_the_defaults() -> None:
    stored = yaml.safe_load((ROOT / "configs" / "robot" / "sim.yaml").read_text())
    assert RobotConfig(**stored) == RobotConfig()


def test_the_tighter_limit_is_in_force() -> None:
    robot = RobotConfig(action_limit=0.9, rate_limit=0.2, observation_limit=50.0)
    asked = entry("metaworld/reach-v3", Limits(action=0.5, rate=0.4, observation=60.0))
    guard = robot.guard(manifest(asked), asked)
    assert (guard.action_limit, guard.rate_limit, guard.observation_limit) == (0.5, 0.2, 50.0)
    free = entry("metaworld/reach-v3")
    assert robot.guard(manifest(free, action_high=0.7), free).action_limit == 0.7


def test_holding_keeps_only_the_named_dimensions_of_the_named_suite() -> None:
    robot = RobotConfig(hold_last=("metaworld:3", "dmc:0"))
    sawyer, other = entry("metaworld/reach-v3"), entry("bench/point")
    assert robot.guard(manifest(sawyer), sawyer).hold == ("zero", "zero", "zero", "last")
    assert robot.guard(manifest(other), other).hold == ("zero",) * 4


def test_limits_of_commands_are_not_for_choices() -> None:
    robot = RobotConfig(
        action_limit=0.5, rate_limit=0.1, acceleration_limit=0.2, soft_start_s=1.0, hold_last=("gym:0",)
    )
    task = TaskEntry(
        "gym/CartPole-v1", 0, 4, 1, 50.0, "0" * 16, choices=4, limits=Limits(action=0.1, rate=0.1)
    )
    guard = robot.guard(Manifest((task,), state_size=4, action_size=4, choices=4), task)
    assert (guard.choices, guard.action_size, guard.hold) == (4, 1, ("last",))
    assert min(guard.action_limit, guard.rate_limit) >= 3
    assert guard.acceleration_limit == guard.soft_start_ticks == 0
    assert guard.observation_limit == 100.0, "those of observations and times are"


def test_times_become_seconds_and_ticks() -> None:
    robot = RobotConfig(stale_limit_ms=30, inference_deadline_ms=5, soft_start_s=0.5)
    of = entry("bench/point")
    guard = robot.guard(manifest(of), of)
    assert (guard.stale_limit_s, guard.inference_deadline_s, guard.soft_start_ticks) == (0.03, 0.005, 40)


def test_a_soft_start_is_never_rounded_away() -> None:
    slow = dataclasses.replace(entry("bench/point"), rate_hz=0.4)
    assert RobotConfig(soft_start_s=1.0).guard(manifest(slow), slow).soft_start_ticks == 1
    assert RobotConfig(soft_start_s=0.0).guard(manifest(slow), slow).soft_start_ticks == 0


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(RobotConfig)])
def test_no_number_may_be_infinite(name: str) -> None:
    if isinstance(getattr(RobotConfig(), name), float):
        with pytest.raises(OutOfRangeError, match=f"robot.{name}=inf"):
            RobotConfig(**{name: float("inf")})


@pytest.mark.parametrize(
    "changes",
    [
        {"rate_limit": 0},
        {"stale_limit_ms": -1},
        {"action_limit": 1.5},
        {"hold_budget": -1},
        {"rate_limit": float("nan")},
        {"rate_limit": 2.5},
        *({name: 1e300} for name in TIMES),
    ],
)
def test_a_value_out_of_range_names_its_key_and_range(changes: dict) -> None:
    with pytest.raises(OutOfRangeError, match=f"robot.{next(iter(changes))}=.* expected"):
        RobotConfig(**changes)


@pytest.mark.parametrize("item", ["metaworld", "metaworld:", ":3", "metaworld:x"])
def test_a_malformed_dimension_is_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="suite:dimension"):
        RobotConfig(hold_last=(item,))


def test_the_registry_knows_the_simulated_robot() -> None:
    robot = registry.load("robot", "sim")
    assert (robot.name, robot.module) == ("sim", "mtrl.deployment.robots.simulated")


def test_importing_the_room_loads_no_heavy_package() -> None:
    code = "import mtrl.deployment, sys; print([m for m in {!r} if m in sys.modules])"
    heavy = ("torch", "ray", "mujoco", "metaworld", "onnx", "onnxruntime")
    done = subprocess.run(
        [sys.executable, "-c", code.format(heavy)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
