"""Terms of `robot.yaml`, and what reaches the joints: always within every limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.deployment import GuardFlag, RobotConfig
from mtrl.deployment.robots.fit import require_fit
from mtrl.deployment.robots.joint_environment import JointEnvironment
from mtrl.deployment.robots.joints import Intake, Reading
from mtrl.deployment.robots.site import read_site
from mtrl.deployment.robots.terms import action_terms, observation_terms
from mtrl.errors import ConfigError, GuardError, IntegrityError, MtrlError
from mtrl.tasks import Task

from ..bench_suite import RATE_HZ, SUITE

SITE = """
joints:
  - {name: a, low: -90, high: 90, velocity: 100, unit: deg, start_low: -10, start_high: 10}
  - {name: b, low: 0, high: 1, velocity: 0.5, unit: m}
topics: {perception: scene, perception_size: 2}
tasks:
  bench:
    observation: [2 * position.a + 1, previous.0, "perception.0:2"]
    action: [0.1 * shift.a, 0.25 * position.b + 0.5]
    success: {of: [0], to: [3], within: 0.1}
"""
CONFIG = RobotConfig(hold_last=("bench:1",))
TASK = SUITE.task("bench/point")


def site(tmp_path: Path, text: str = SITE) -> Path:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    return path


class Perfect:
    """A robot that is at once where it is commanded."""

    def __init__(self, position: list[float]) -> None:
        self.reading = Reading(2, 2)
        self.reading.position[:] = position
        self.reading.perception[:] = (5.0, 1.4)
        self.reading.heard[:] = 3.0
        self.dropped = 0
        self.commands: list[np.ndarray] = []

    def begin(self, start: int) -> None:
        pass

    def read(self) -> None:
        pass

    def command(self, target: np.ndarray) -> None:
        self.commands.append(target.copy())
        self.reading.position[:] = target

    def hold(self) -> None:
        pass

    def close(self) -> None:
        pass


def begun(path: Path, position: list[float], task: Task = TASK) -> tuple[JointEnvironment, Perfect, dict]:
    robot = Perfect(position)
    environment = JointEnvironment(task, read_site(path), robot, None)
    out = {"state": np.zeros(4, dtype=np.float32)}
    environment.reset(0, out)
    return environment, robot, out


def test_observations_and_actions_are_what_their_terms_say(tmp_path: Path) -> None:
    environment, robot, out = begun(site(tmp_path), [0.1, 0.5])
    # 2 * 0.1 + 1; before the first observation there was none, so it is its own predecessor
    assert out["state"].tolist() == pytest.approx([1.2, 1.2, 5.0, 1.4])
    assert environment.observed_at == 3.0
    _, _, success = environment.step(np.array([0.2, 0.02]), out)
    assert robot.commands[-1].tolist() == pytest.approx([0.12, 0.505])
    assert out["state"].tolist() == pytest.approx([1.24, 1.2, 5.0, 1.4])
    assert not success
    _, _, success = environment.step(np.array([0.3, 0.02]), out)
    assert out["state"].tolist() == pytest.approx([1.3, 1.24, 5.0, 1.4])
    assert success, "1.3 is within 0.1 of 1.4"
    assert environment.limited == 0


def test_a_fast_command_slows_all_joints_alike(tmp_path: Path) -> None:
    environment, robot, out = begun(site(tmp_path), [0.0, 0.5])
    environment.step(np.array([1.0, 1.0]), out)
    # b would move 0.25 m, and may move 0.5 / 50 Hz = 0.01 m: a 25th of both
    assert robot.commands[-1].tolist() == pytest.approx([0.1 / 25, 0.51])
    assert environment.limited == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=20))
def test_no_action_leads_beyond_a_limit(tmp_path_factory: pytest.TempPathFactory, actions: list) -> None:
    path = tmp_path_factory.getbasetemp() / "robot.yaml"
    path.write_text(SITE)
    environment, robot, out = begun(path, [0.0, 0.5])
    for action in actions:
        environment.step(np.array(action), out)
    sent = np.array([[0.0, 0.5], *robot.commands])
    assert (np.abs(sent[:, 0]) <= np.pi / 2).all()
    assert ((sent[:, 1] >= 0) & (sent[:, 1] <= 1)).all()
    speed = np.abs(np.diff(sent, axis=0)) * RATE_HZ
    assert (speed <= np.array([np.deg2rad(100), 0.5]) * (1 + 1e-9)).all()


def test_a_start_outside_its_envelope_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="joint 'a' is at 20 deg; a flight begins within -10 to 10"):
        begun(site(tmp_path), [np.deg2rad(20), 0.5])


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("position.a", "position.c", "unknown joint 'c'"),
        ("2 * position.a + 1", "position.a.b", "unknown joint"),
        ("2 * position.a + 1", "position a", "no term"),
        ("2 * position.a + 1", "pose.a", "unknown source 'pose'"),
        ("perception.0:2", "perception.0:3", "perception.2, of 0 to 1"),
        ("perception.0:2", "perception.2:2", "no entry"),
        ("perception.0:2", "perception.0", "3 observations"),
        ("previous.0", "previous.4", "previous.4, of 0 to 3"),
        ("0.1 * shift.a", "0.1 * shift.a + 1", "without an offset"),
        ("0.1 * shift.a", "position.a", "must hold bench:0"),
        ("0.25 * position.b + 0.5", "shift.b", "must not hold bench:1"),
        ("0.1 * shift.a", "0.1 * shift.b", "two dimensions"),
        ("0.1 * shift.a", "0.1 * tool.x", "needs `model`"),
        ("to: [3]", "to: [4]", "an entry that no observation has"),
        ("bench:", "other:", "binds no task bench/point; it has other"),
        ("velocity: 100,", "", "velocity"),
        ("high: 90", "high: -91", "low <= start_low < start_high <= high"),
        ("name: b", "name: a", "different names"),
        ("unit: deg", "unit: degree", "robot.joints"),
        ("velocity: 0.5", "velocity: .inf", "finite"),
        ("velocity: 0.5", "velocity: 0", "above 0"),
        ("scene", "scène", "no name of a ROS 2 topic"),
        ("topics:", "topic:", "did you mean 'robot.topics'"),
        ("topics:", "artefact: 0123456789abcdef\ntopics:", "takes the artefact 0123456789abcdef only"),
        ("topics:", "network: {interface: 'lo\"/><x'}\ntopics:", "neither an interface nor a host"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_connecting(
    tmp_path: Path, before: str, after: str, reason: str
) -> None:
    require_fit(site(tmp_path), CONFIG, [TASK], "f" * 64)
    assert before in SITE
    with pytest.raises(MtrlError) as raised:
        require_fit(site(tmp_path, SITE.replace(before, after, 1)), CONFIG, [TASK], "f" * 64)
    assert reason in str(raised.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for text in ("", "- 1", "joints: {", "joints: &x [*x]"):
        with pytest.raises(IntegrityError, match=r"robot\.yaml is not a robot\.yaml"):
            read_site(site(tmp_path, text))


def test_terms_are_read_with_signs_and_exponents() -> None:
    (term,) = observation_terms(["-1.5e-2*velocity.b - .5"], ["a", "b"], 0)
    assert (term.kind, term.index, term.scale, term.offset) == ("velocity", 1, -0.015, -0.5)
    (constant,) = observation_terms(["-0.25"], [], 0)
    assert (constant.kind, constant.offset) == ("constant", -0.25)
    with pytest.raises(ConfigError, match="no term"):
        action_terms(["0.5"], ["a"])


def test_readings_that_cannot_be_are_refused_and_age(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(SITE)
    intake = Intake(read_site(path).joints, 0, 0.02)
    still = np.zeros(2)

    def offer(at: float, a: float, b: float) -> bool:
        return intake.offer(at, slice(None), np.array([a, b]), still, still)

    assert offer(1.0, 0.0, 0.5)
    assert not offer(1.0, 0.0, 0.5), "not newer"
    assert not offer(0.5, 0.0, 0.5), "overtaken"
    assert not offer(1.01, np.nan, 0.5)
    # 0.02 of 180 degrees, and twice 100 degrees a second for 10 ms: 5.6 degrees
    assert not offer(1.01, np.deg2rad(5.7), 0.5)
    assert intake.reading.observed_at == 1.0
    assert intake.dropped == 4
    assert offer(1.01, np.deg2rad(5.5), 0.5)
    assert not offer(9.0, np.deg2rad(100), 0.5), "5% of the range beyond its limit, 99 degrees, is the most"
    assert offer(9.0, np.deg2rad(98), 0.5)


def test_readings_that_waited_for_us_come_all_at_once_and_are_believed(tmp_path: Path) -> None:
    """A tenth of a second passed between these measurements, ten microseconds between their receipts."""
    intake = Intake(read_site(site(tmp_path)).joints, 0, 0.02)

    def offer(at: float, sent: float, degrees: float) -> bool:
        position = np.array([np.deg2rad(degrees), 0.5])
        return intake.offer(at, slice(None), position, np.zeros(2), np.zeros(2), sent)

    assert offer(1.0, 50.0, 0.0)
    assert offer(1.00001, 50.1, 20.0), "3.6 degrees, and twice 100 degrees a second for 100 ms"
    assert not offer(1.00002, 50.1, 40.0), "no time passed by either clock"
    assert not offer(1.00003, np.nan, 40.0), "nor does an unknown one help"
    assert offer(1.00004, 50.101, 20.0)
    assert intake.dropped == 2


LIMITED = SITE.replace("velocity: 100,", "velocity: 100, acceleration: 500, effort: 5, tracking: 3,").replace(
    "velocity: 0.5,", "velocity: 0.5, acceleration: 4,"
)


@pytest.mark.parametrize("seed", range(4))
def test_joints_accelerate_within_their_limits_and_stop_before_their_ends(tmp_path: Path, seed: int) -> None:
    environment, robot, out = begun(site(tmp_path, LIMITED), [0.0, 0.5])
    generator = np.random.default_rng(seed)
    actions = generator.uniform(-1, 1, (60, 2)) * generator.choice([0.0, 0.3, 1.0], (60, 2))
    # a run of one sign is what drives a joint into its end
    for action in np.repeat(actions, 20, axis=0):
        environment.step(np.array(action, dtype=np.float32), out)
    positions = np.array([[0.0, 0.5], *robot.commands])
    speed = np.diff(positions, axis=0, prepend=positions[:1]) * RATE_HZ
    growth = np.abs(np.diff(speed, axis=0)) * RATE_HZ
    assert (np.abs(speed) <= np.array([np.deg2rad(100), 0.5]) * (1 + 1e-9)).all()
    assert (growth <= np.array([np.deg2rad(500), 4.0]) * (1 + 1e-6) + 1e-6).all()
    assert ((positions >= [-np.pi / 2, 0.0]) & (positions <= [np.pi / 2, 1.0])).all()


def test_what_is_measured_beyond_a_limit_is_reported(tmp_path: Path) -> None:
    environment, robot, _ = begun(site(tmp_path, LIMITED), [0.0, 0.5])
    assert environment.breach == 0
    robot.reading.effort[:] = (5.1, 1e6)
    assert environment.breach == GuardFlag.EFFORT_BEYOND_LIMIT
    robot.reading.effort[:] = 0.0
    robot.reading.position[:] = (np.deg2rad(3.1), 0.5)
    assert environment.breach == GuardFlag.NOT_FOLLOWING
    robot.reading.position[:] = (0.0, 1.05)
    assert environment.breach == GuardFlag.JOINT_BEYOND_LIMIT
    robot.reading.position[:] = (0.0, 0.5)
    robot.reading.velocity[:] = (0.0, -0.76)
    assert environment.breach == GuardFlag.VELOCITY_BEYOND_LIMIT, "0.5 m/s, half as much again is overshoot"
    robot.reading.velocity[:] = 0.0
    robot.reading.stop = True
    assert environment.breach == GuardFlag.STOP_REQUESTED
    with pytest.raises(GuardError, match="the emergency stop"):
        environment.refresh({"state": np.zeros(4, dtype=np.float32)})
