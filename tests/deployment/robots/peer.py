"""A robot on ROS 2's wire, as a test plays it: publishes joint states, and any bytes, and takes commands."""

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip(
    "cyclonedds", reason="needs cyclonedds; mend: .venv/bin/pip install -c constraints.txt cyclonedds"
)

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float64, sequence
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from mtrl.deployment.robots.ros2 import messages
from mtrl.deployment.robots.ros2.wire import mangled, settings
from mtrl.deployment.robots.site import Network

DOMAIN = 1 + os.getpid() % 100
"""Tests of other processes of this machine are in other domains."""
SITE = """
joints:
  - {name: elbow, low: -100, high: 100, velocity: 400, unit: deg}
  - {name: slider, low: 0, high: 500, velocity: 4000, unit: mm}
tasks: {}
topics:
  {state: arm/joint_states, command: KIND/commands, kind: KIND, perception: PERCEPTION, perception_size: SIZE,
  stop: arm/stop}
network: {domain: DOMAIN}
"""
PATIENCE_S = 20.0


def write_site(path: Path, kind: str = "array", perception: int = 0) -> Path:
    """A robot of two joints in the units that are not ours."""
    text = SITE.replace("KIND", kind).replace("DOMAIN", str(DOMAIN))
    text = text.replace("PERCEPTION", "scene" if perception else "''").replace("SIZE", str(perception))
    path.write_text(text)
    return path


@dataclass
@final
class Commands(IdlStruct, typename="std_msgs::msg::dds_::Float64MultiArray_"):
    """Read by cyclonedds' own decoder."""

    layout: messages.ArrayLayout
    data: sequence[float64]


_domains: dict[int, Domain] = {}


class Peer:
    """The robot's side of the wire in this process."""

    def __init__(self, kind: type, commands: str = "array/commands") -> None:
        if DOMAIN not in _domains:
            _domains[DOMAIN] = Domain(DOMAIN, settings(Network(domain=DOMAIN)))
        self.participant = DomainParticipant(DOMAIN)
        self.qos = Qos(
            Policy.Reliability.Reliable(duration(milliseconds=100)),
            Policy.History.KeepLast(10),
            Policy.DataRepresentation(use_cdrv0_representation=True),
        )
        self.writer = self._writer("arm/joint_states", messages.JointState)
        self.written = self.forged = 0
        self.scene = self._writer("scene", messages.FloatArray)
        self.stop = self._writer("arm/stop", messages.Bool)
        topic = Topic(self.participant, mangled(commands), kind, qos=self.qos)
        self.reader = DataReader(self.participant, topic, qos=self.qos)

    def _writer(self, topic: str, kind: type) -> DataWriter:
        return DataWriter(
            self.participant, Topic(self.participant, mangled(topic), kind, qos=self.qos), qos=self.qos
        )

    def state(
        self, names: Sequence[str], position: Sequence[float], *, velocity: Sequence[float] = ()
    ) -> None:
        """Publishes a joint state."""
        self.written += 1
        self.writer.write(
            messages.JointState(name=list(names), position=list(position), velocity=list(velocity))
        )

    def raw(self, content: bytes) -> None:
        """Publishes bytes as a joint state."""
        self.written += 1
        message = messages.JointState()
        message.serialize = lambda *_, **__: content  # type: ignore[method-assign]
        self.writer.write(message)

    def rival(self, topic: str) -> DataWriter:
        """Somebody else who publishes commands, as long as it is kept."""
        return self._writer(topic, messages.Trajectory)

    def datagram(self, content: bytes) -> None:
        """Sends bytes to the data port of every participant of the domain (DDSI-RTPS 2.5, section 9.6.2)."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for participant in range(8):
                sender.sendto(content, ("127.0.0.1", 7400 + 250 * DOMAIN + 11 + 2 * participant))

    def forge(self, payload: bytes) -> None:
        """Sends a payload that cyclonedds would not, as the writer's next message (section 9.4)."""
        guid = self.writer.get_guid().bytes
        self.forged += 1
        sequence = struct.pack("<iI", 0, self.written + self.forged)
        body = b"\0\0\x10\0" + bytes(4) + guid[12:] + sequence + payload
        data = b"\x15\x05" + struct.pack("<H", len(body)) + body
        self.datagram(b"RTPS\x02\x01\x01\x10" + guid[:12] + data)

    def commands(self) -> list:
        """What was commanded since the last call."""
        return [sample for sample in self.reader.take(N=10) if sample.sample_info.valid_data]


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that must happen soon."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)
