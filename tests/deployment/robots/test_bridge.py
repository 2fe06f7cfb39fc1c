"""The bridge in its own process, and a robot on the wire of this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment.robots.ros2.bridge import WRITTEN_BYTES, StopInput
from mtrl.deployment.robots.ros2.link import BridgedRobot
from mtrl.errors import GuardError

from .peer import PATIENCE_S, Commands, Peer, messages, until, write_site

PERIOD_S = 0.02
SCENE = [1.0, 2.0, 3.0]


def bridged(path: Path, peer: Peer, patience_s: float = PATIENCE_S, **state: float) -> BridgedRobot:
    """A robot; while it is waited for, the peer says this state and the scene."""

    def say() -> None:
        peer.state(list(state), list(state.values()))
        peer.scene.write(messages.FloatArray(data=SCENE))

    return BridgedRobot(path, PERIOD_S, fifo=False, patience_s=patience_s, each_poll=say)


@pytest.fixture(scope="module")
def peer() -> Peer:
    return Peer(Commands)


@pytest.fixture(scope="module")
def robot(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgedRobot]:
    """A robot with perception that has begun."""
    path = write_site(tmp_path_factory.mktemp("site") / "robot.yaml", perception=3)
    found = bridged(path, peer, gripper=7.0, slider=250.0, elbow=10.0)
    try:
        found.begin(0)
        yield found
    finally:
        found.close()


def arrived(peer: Peer) -> list:
    """The next commands on the wire, one at least."""
    found: list = []
    until(lambda: found.extend(peer.commands()) or found, "commands")
    return found


def test_joints_are_bound_by_name_in_si_units(peer: Peer, robot: BridgedRobot) -> None:
    assert robot.reading.position.tolist() == pytest.approx([np.deg2rad(10.0), 0.25], abs=1e-15)
    assert robot.reading.perception.tolist() == SCENE
    peer.state(["slider", "gripper"], [251.0, 3.0], velocity=[1000.0, 1.0])
    until(lambda: robot.read() or robot.reading.velocity[1] == 1.0, "a part of the state")
    assert robot.reading.position[1] == 0.251
    # the age is that of the oldest part
    assert robot.reading.observed_at == robot.reading.heard.min() < robot.reading.heard[1]
    assert robot.dropped == 0


def test_commands_arrive_exactly_and_are_repeated_when_none_come(peer: Peer, robot: BridgedRobot) -> None:
    assert peer.commands() == [], "nothing is commanded before the first command"
    until(lambda: robot.command(np.array([np.pi / 4, 0.125])) or peer.commands(), "a command")
    robot.command(np.array([np.pi / 2, 0.1]))
    until(lambda: arrived(peer)[-1].data == [90.0, 100.0], "the second command")
    # the loop says nothing now: the bridge repeats the last command by itself
    assert [command.data for command in arrived(peer) + arrived(peer)][-2:] == [[90.0, 100.0]] * 2


def test_what_cannot_be_is_dropped_counted_and_ages(peer: Peer, robot: BridgedRobot) -> None:
    begun = time.monotonic()
    peer.state(["elbow", "slider"], [10.0, 250.0])
    until(lambda: robot.read() or (robot.reading.heard[:2] > begun).all(), "a good state")
    heard, before = robot.reading.heard.copy(), robot.dropped
    whole = messages.JointState(name=["elbow", "slider"], position=[10.0, 250.0]).serialize()
    peer.raw(whole + bytes(80_000))
    peer.raw(whole + bytes(16))
    peer.state(["elbow", "x" * 300], [10.0, 1.0])
    for position in ([np.nan, 250.0], [10.0, np.inf], [99.0, 250.0], [10.0, 600.0], [10.0]):
        peer.state(["elbow", "slider"], position)
    until(lambda: robot.read() or robot.dropped >= before + 8, "eight dropped")
    peer.state(["elbow", "elbow"], [10.0, 10.0])
    peer.scene.write(messages.FloatArray(data=[1.0, 2.0]))
    peer.scene.write(messages.FloatArray(data=[1.0, 2.0, np.nan]))
    until(lambda: robot.read() or robot.dropped >= before + 11, "three more dropped")
    assert robot.dropped == before + 11
    assert (robot.reading.heard == heard).all(), "what is refused does not make the reading younger"
    peer.state(["elbow", "slider"], [11.0, 250.0])
    until(lambda: robot.read() or (robot.reading.heard[:2] > heard[:2]).all(), "good state after the bad")
    assert robot.reading.position[0] == pytest.approx(np.deg2rad(11.0), abs=1e-15)


def test_what_strangers_make_the_bridge_write_is_bounded(peer: Peer, robot: BridgedRobot) -> None:
    """Cyclone DDS writes 250 bytes for each of these to the bridge's standard error."""
    errors = Path(f"/proc/{robot._process.pid}/fd/2")
    for _ in range(6000):
        peer.datagram(b"RTPS\x02\x01\x01\x10" + bytes(range(40)))
    peer.state(["elbow", "slider"], [11.0, 250.0])
    until(lambda: robot.read() or robot.reading.position[0] == np.deg2rad(11.0), "a state after the flood")
    assert 0 < errors.stat().st_size <= WRITTEN_BYTES
    assert not Path("cyclonedds.log").exists()


def test_datagrams_that_are_no_message_change_nothing(peer: Peer, robot: BridgedRobot) -> None:
    """Below the bridge's own decoder cyclonedds throws away what is not of the type, without counting it."""
    whole = messages.JointState(name=["elbow", "slider"], position=[10.0, 250.0]).serialize()
    generator = np.random.default_rng(0)
    good = messages.JointState(name=["elbow", "slider"], position=[10.5, 250.0]).serialize()
    peer.forge(good)
    until(
        lambda: robot.read() or robot.reading.position[0] == np.deg2rad(10.5),
        "a forged message that is whole",
    )
    for content in (
        b"",
        whole[:-12],
        whole[:20],
        whole[:20] + b"\xff\xff\xff\x7f" + whole[24:],
        b"\x00\x07" + whole[2:],
        whole[:4] + generator.bytes(200),
    ):
        peer.forge(content)
    for length in (0, 3, 20, 64, 1400, 60_000):
        peer.datagram(generator.bytes(length))
        peer.datagram(b"RTPS\x02\x01" + generator.bytes(length))
    robot.read()
    heard = robot.reading.heard[0]

    def read_again() -> bool:
        peer.state(["elbow", "slider"], [12.0, 250.0])
        robot.read()
        return bool(robot.reading.heard[0] > heard)

    until(read_again, "good state after the bad")
    assert robot.reading.position[0] == pytest.approx(np.deg2rad(12.0), abs=1e-15)


def test_an_emergency_stop_stays_once_commands_went_out(peer: Peer, robot: BridgedRobot) -> None:
    assert not robot.reading.stop
    peer.stop.write(messages.Bool(data=False))
    peer.stop.write(messages.Bool(data=True))
    peer.stop.write(messages.Bool(data=False))
    until(lambda: robot.read() or robot.reading.stop, "the stop")
    before = robot.believed

    def later() -> bool:
        peer.state(["elbow", "slider"], [12.0, 250.0])
        robot.read()
        return robot.believed > before

    until(later, "a later reading")
    assert robot.reading.stop, "released, it stays"


def test_the_stop_input_is_released_before_a_flight_and_may_not_be_silent() -> None:
    stop = StopInput(timeout_s=0.5, now=10.0)
    stop.hear(True, 10.1)
    assert stop.asked(10.1, flying=False)
    stop.hear(False, 10.2)
    assert not stop.asked(10.2, flying=False)
    assert not stop.asked(10.6, flying=True)
    assert stop.asked(10.8, flying=True), "silent for longer than half a second"
    stop.hear(False, 10.9)
    assert stop.asked(10.9, flying=True), "heard again, it stays"
    assert not StopInput(0.0, 10.0).asked(1e9, flying=True), "without a time-out silence means nothing"


def test_a_bridge_that_died_is_an_error(peer: Peer, robot: BridgedRobot) -> None:
    os.kill(robot._process.pid, signal.SIGKILL)
    with pytest.raises(GuardError, match="the bridge to ROS 2 ended"):
        until(lambda: robot.read(), "an error")


def test_a_second_controller_of_the_same_robot_is_refused(peer: Peer, tmp_path: Path) -> None:
    rival = peer.rival("trajectory/commands")
    robot = bridged(write_site(tmp_path / "robot.yaml", "trajectory"), peer, slider=1.0, elbow=0.0)
    try:
        with pytest.raises(GuardError, match="1 others publish trajectory/commands too"):
            until(lambda: robot.begin(0), "a refusal")
    finally:
        robot.close()
        del rival


def test_what_did_not_come_is_named(peer: Peer, tmp_path: Path) -> None:
    robot = bridged(write_site(tmp_path / "robot.yaml"), peer, 0.3, slider=3.0)

    def names_the_joint() -> bool:
        with pytest.raises(GuardError) as raised:
            robot.begin(0)
        return "arm/joint_states never held elbow within 0.3 s" in str(raised.value)

    try:
        until(names_the_joint, "the missing joint named")
    finally:
        robot.close()
