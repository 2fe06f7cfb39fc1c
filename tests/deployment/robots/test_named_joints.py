"""What an artefact says of joints and entries is bound by name, and the tighter limit is in force."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import (
    Guard,
    GuardConfig,
    GuardFlag,
    GuardState,
    Joint,
    RobotConfig,
    TaskEntry,
    deploy,
    read_manifest,
)
from mtrl.deployment.robots.fit import effective_site, named_for
from mtrl.deployment.robots.joint_guard import Limits
from mtrl.deployment.robots.site import Site, read_site
from mtrl.errors import ConfigError

from ..bench_suite import BenchSuite
from ..graphs import STEER, write_linear
from .test_joint_environment import CONFIG, SITE

TURNED = Joint("a", -1.0, 1.2, 3.0, unit="rad", effort=4.0, start_low=-0.5, start_high=0.1)
SLIDES = Joint("b", 100, 2000, 400, unit="mm", acceleration=2000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "robot.yaml"
    found.write_text(SITE)
    return found


def exported(bench: BenchSuite, directory: Path, site: Site, *joints: Joint) -> Path:
    """An artefact that names the entries of `site`, and `joints` or its own."""
    entry = named_for(TaskEntry.of(bench.task("bench/point"), 0), site)
    write_linear(directory, (entry,), STEER, execute=1, joints=joints or site.joints)
    return directory


def test_of_each_pair_the_tighter_limit_is_in_force_whatever_the_unit(
    bench: BenchSuite, path: Path, tmp_path: Path
) -> None:
    """The site: a -90 to 90 deg, 100 deg/s, starts within 10 deg; b 0 to 1 m, 0.5 m/s."""
    artefact = exported(bench, tmp_path / "artefact", read_site(path), SLIDES, TURNED)
    limits = Limits(effective_site(path, read_manifest(artefact)))
    assert limits.low.tolist() == pytest.approx([-1.0, 0.1])
    assert limits.high.tolist() == pytest.approx([1.2, 1.0])
    assert limits.velocity.tolist() == pytest.approx([np.deg2rad(100), 0.4])
    assert limits.acceleration.tolist() == pytest.approx([np.inf, 2.0])
    assert limits.effort.tolist() == pytest.approx([4.0, np.inf])
    assert limits.start_low.tolist() == pytest.approx([-np.deg2rad(10), 0.1])
    assert limits.start_high.tolist() == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(
    ("joints", "reason"),
    [
        ((TURNED, dataclasses.replace(SLIDES, name="c")), "Not here: c; not there: b"),
        ((TURNED,), "Not here: none; not there: b"),
        (
            (TURNED, Joint("b", 0, 1, 1)),
            "joint 'b' is in m here and in rad",
        ),
        (
            (dataclasses.replace(TURNED, low=1.6, high=2, start_low=1.6, start_high=2), SLIDES),
            "joint 'a' needs",
        ),
    ],
)
def test_joints_of_another_robot_are_refused_before_any_process(
    bench: BenchSuite, path: Path, tmp_path: Path, joints: tuple[Joint, ...], reason: str
) -> None:
    artefact = exported(bench, tmp_path / "artefact", read_site(path), *joints)
    robot = dataclasses.replace(CONFIG, name="arm", file=str(path))
    with pytest.raises(ConfigError, match=reason):
        deploy(artefact, robot, ["bench/point"], [0], 0, tmp_path)
    assert not (tmp_path / "deployments").exists()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('"perception.0:2"', "perception.1, perception.0", "entry 2 of the observation of bench/point"),
        ("2 * position.a", "2.5 * position.a", r"`2\.0 \* position\.a \+ 1\.0` \[rad\] in the artefact"),
        ("position.a", "velocity.a", r"`2\.0 \* velocity\.a \+ 1\.0` \[rad/s\] in robot\.yaml"),
        ("0.1 * shift.a", "-0.1 * shift.a", "entry 0 of the action"),
    ],
)
def test_entries_that_are_permuted_rescaled_or_of_another_unit_are_refused(
    bench: BenchSuite, path: Path, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    artefact = exported(bench, tmp_path / "artefact", read_site(path))
    assert before in SITE
    path.write_text(SITE.replace(before, after, 1))
    robot = RobotConfig(name="arm", file=str(path), hold_last=("bench:1",))
    with pytest.raises(ConfigError, match=reason):
        deploy(artefact, robot, ["bench/point"], [0], 0, tmp_path)
    assert not (tmp_path / "deployments").exists()


def test_targets_without_a_solution_stop_the_robot_after_the_budget() -> None:
    guard = Guard(GuardConfig(action_size=1, hold=("zero",), hold_budget=3))
    guard.arm(0.0)
    states = []
    for tick in range(12):
        reported = int(GuardFlag.IK_UNSOLVED) if tick not in (0, 3) else int(GuardFlag.WORKSPACE_LIMITED)
        guarded = guard.check(np.zeros(1), tick / 80, np.ones(1), 0.0, tick / 80, tick / 80, reported)
        assert guarded.flags & reported
        states.append(guarded.state)
    # ticks 1 and 2, then 4 to 6 within the budget of three; the fourth in a row is tick 7
    assert states == [GuardState.RUN] * 7 + [GuardState.ESTOP] * 5
    assert "no joints were found for more than 3 targets" in guard.transitions[-1].cause
