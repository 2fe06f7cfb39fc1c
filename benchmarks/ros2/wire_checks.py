"""Two more judges of our bytes: tshark of the packets on the wire, rosbags of messages and of flight logs."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mtrl.deployment import Flight, Guard, GuardConfig
from mtrl.deployment.flight.log import write_flight
from mtrl.deployment.realtime.records import FlightRing, joint_words, row_width
from mtrl.deployment.robots.ros2 import messages

READER = Path(__file__).with_name("rosbags_reader.py")
NAMES = ("elbow", "wrist")
TICKS = 50
SETTLE_S = 1.5
"""Time that tshark takes to begin, and packets to its file."""
WANTED = (
    "rt/joint_states",
    "rt/commands",
    "sensor_msgs::msg::dds_::JointState_",
    "trajectory_msgs::msg::dds_::JointTrajectory_",
)


class Packets:
    """What tshark found in the packets of a run."""

    def __init__(self) -> None:
        self.malformed: float | str = "tshark is not installed"
        self.rtps = 0


@contextlib.contextmanager
def captured(domain: int) -> Iterator[Packets]:
    """Counts the packets of a domain on this machine that tshark calls malformed; exits for none at all, and
    where it does not see the names of our topics and types.
    """
    found = Packets()
    if shutil.which("tshark") is None:
        yield found
        return
    with tempfile.TemporaryDirectory() as place:
        file, first = str(Path(place) / "wire.pcap"), 7400 + 250 * domain
        command = ["tshark", "-q", "-i", "lo", "-f", f"udp portrange {first}-{first + 249}", "-w", file]
        capture = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(SETTLE_S)
        try:
            yield found
        finally:
            time.sleep(SETTLE_S)
            capture.terminate()
            capture.wait()
        names = ["-T", "fields", "-e", "rtps.param.topicName", "-e", "rtps.param.typeName"]
        seen = _lines(file, "rtps", *names)
        found.rtps = len(seen)
        found.malformed = float(len(_lines(file, "_ws.malformed")))
    lacking = [name for name in WANTED if not any(name in line for line in seen)]
    if lacking:
        raise SystemExit(f"tshark saw {found.rtps} packets, and never {', '.join(lacking)}")


def _lines(file: str, what: str, *options: str) -> list[str]:
    done = subprocess.run(
        ["tshark", "-r", file, "-Y", what, *options], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def rosbags_disagrees(python: Path) -> int:
    """Messages of the wire and of a flight log whose numbers or bytes rosbags reads otherwise."""
    draws = np.random.default_rng(0)
    sent = [draws.standard_normal(7).tolist() for _ in range(3)]
    names = [f"joint{index}" for index in range(7)]
    point = messages.TrajectoryPoint(positions=sent[0], time_from_start=messages.Duration(1, 5))
    wire = [
        (
            "sensor_msgs/msg/JointState",
            messages.JointState(name=names, position=sent[0], velocity=sent[1], effort=sent[2]),
            [*sent[0], *sent[1], *sent[2]],
        ),
        ("std_msgs/msg/Float64MultiArray", messages.FloatArray(data=sent[0]), [0.0, *sent[0]]),
        ("std_msgs/msg/Bool", messages.Bool(data=True), [1.0]),
        (
            "trajectory_msgs/msg/JointTrajectory",
            messages.Trajectory(joint_names=names, points=[point]),
            sent[0],
        ),
    ]
    with tempfile.TemporaryDirectory() as place:
        log, flight = Path(place) / "flight.mcap", flown()
        write_flight(log, flight)
        asked = {
            "messages": [(kind, bytes(message.serialize()).hex()) for kind, message, _ in wire],
            "log": str(log),
        }
        done = subprocess.run(
            [str(python), str(READER)], input=json.dumps(asked), capture_output=True, text=True, check=True
        )
    said = json.loads(done.stdout)
    wrong = sum(
        not equal or found != expected
        for (found, equal), (_, _, expected) in zip(said["messages"], wire, strict=True)
    )
    joints = flight.joints[:, 2:]
    for topic, expected in (
        ("/command", flight.command),
        ("/observation", flight.observation),
        ("/joint_states", joints[:, :6]),
        ("/joint_commands", joints[:, 6:8]),
    ):
        rows = [row[-expected.shape[1] :] for row in said["log"][topic]]
        wrong += int((np.array(rows) != expected).any(axis=1).sum())
    return wrong


def flown() -> Flight:
    """A flight of a robot of two joints, with numbers that need all their bits."""
    draws = np.random.default_rng(1)
    words = joint_words(2, 2)
    ring = FlightRing(np.zeros(TICKS * row_width(4, 2, words)), 4, 2, words)
    config = GuardConfig(action_size=2, hold=("zero", "zero"))
    guard = Guard(config)
    guard.arm(1.0)
    for tick in range(TICKS):
        now, state, proposal = 1.0 + tick / 80, draws.standard_normal(4), draws.standard_normal(2)
        guarded = guard.check(state, now, proposal, 1e-5, now, now)
        numbers = (tick, now, now, now, now, now, 1e-5, 1, guarded.flags, guarded.state, 0)
        ring.append(numbers, state, proposal, guarded.action, draws.standard_normal(words))
    flight = Flight.of(ring, TICKS, "bench/point", "0" * 64, config)
    return Flight(**{**vars(flight), "names": NAMES, "site": "{}", "rate_hz": 80.0})
