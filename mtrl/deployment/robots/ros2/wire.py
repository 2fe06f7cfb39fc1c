"""The wire of ROS 2: cyclonedds with the settings by which it meets a ROS 2 node, on this machine alone by
default. Names are mangled as ROS 2 does (topic `rt/NAME`, type `PACKAGE::msg::dds_::NAME_`), data is CDR of
version 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtrl.errors import MissingExtraError

from ...artefact.joints import UNITS, Joint
from ..site import Network, Topics
from . import cdr

if TYPE_CHECKING:
    from cyclonedds.sub import DataReader

    from .messages import FloatArray, Trajectory

DEPTH = 50
"""Messages that are kept until they are taken."""
DISCOVERED = 1000
"""Publishers of the network that are looked through."""
BLOCKED_MS = 100
"""Longest wait for a reader that is not ready."""
FAST_DDS = "1.15"
"""Vendor whose type information is not read: that of ROS 2 Kilted is none that cyclonedds accepts."""


def require_wire() -> None:
    """Raises MissingExtraError where cyclonedds is not installed."""
    if importlib.util.find_spec("cyclonedds") is None:
        raise MissingExtraError("a robot that speaks ROS 2", "cyclonedds", "ros2")


def settings(network: Network) -> str:
    """The configuration of cyclonedds; with it, no variable of the environment is read."""
    peers = "".join(f'<Peer Address="{peer}"/>' for peer in network.peers)
    return (
        '<CycloneDDS><Domain Id="any"><General><Interfaces>'
        f'<NetworkInterface name="{network.interface}"/></Interfaces>'
        f"<AllowMulticast>{'true' if network.multicast else 'false'}</AllowMulticast></General>"
        "<Discovery><ParticipantIndex>auto</ParticipantIndex>"
        "<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>"
        f"<Peers>{peers}</Peers></Discovery>"
        f"<Compatibility><IgnoreTypeInformation>{FAST_DDS}</IgnoreTypeInformation></Compatibility>"
        # any other verbosity writes cyclonedds.log into the current folder; warnings of bad datagrams go to
        # standard error all the same, whose length the bridge limits
        "<Tracing><Verbosity>none</Verbosity></Tracing></Domain></CycloneDDS>"
    )


def mangled(topic: str) -> str:
    """The name on the wire of a topic of ROS 2."""
    return "rt/" + topic.strip("/")


class Wire:
    """One participant: reads joint states, perception and an emergency stop, writes commands."""

    def __init__(
        self, joints: Sequence[Joint], topics: Topics, network: Network, *, publishes: bool = True
    ) -> None:
        """Joins the domain; without `publishes` no command is sent.

        Raises MissingExtraError without cyclonedds. One a process and domain.
        """
        require_wire()
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
        from cyclonedds.core import InstanceState, Policy, Qos, ReadCondition, SampleState, ViewState
        from cyclonedds.domain import Domain, DomainParticipant
        from cyclonedds.pub import DataWriter
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic
        from cyclonedds.util import duration

        from . import messages

        self._messages = messages
        self._names = [joint.name for joint in joints]
        self._units = [UNITS[joint.unit] for joint in joints]
        qos = Qos(
            Policy.Reliability.Reliable(duration(milliseconds=BLOCKED_MS)),
            Policy.Durability.Volatile,
            Policy.History.KeepLast(DEPTH),
            Policy.DataRepresentation(use_cdrv0_representation=True),
        )
        self._domain = Domain(network.domain, settings(network))
        self._participant = participant = DomainParticipant(network.domain)

        def topic(name: str, kind: type) -> object:
            return Topic(participant, mangled(name), kind, qos=qos)

        self._states = DataReader(participant, topic(topics.state, messages.JointState), qos=qos)
        self._perceived = None
        if topics.perception:
            self._perceived = DataReader(participant, topic(topics.perception, messages.FloatArray), qos=qos)
        self._stops = None
        if topics.stop:
            self._stops = DataReader(participant, topic(topics.stop, messages.Bool), qos=qos)
        self._trajectories = topics.kind == "trajectory"
        kind = messages.Trajectory if self._trajectories else messages.FloatArray
        self._writer = None
        if publishes:
            self._writer = DataWriter(participant, topic(topics.command, kind), qos=qos)
        self._command_topic = mangled(topics.command)
        self._publications = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
        alive = ViewState.Any | SampleState.Any | InstanceState.Alive
        self._alive = ReadCondition(self._publications, alive)

    def joint_states(self) -> Iterator[tuple[cdr.JointState | None, float]]:
        """Every joint state that arrived since the last call, None for what could not be read; and when it
        was sent, in seconds of the sender's wall clock.
        """
        return self._taken(self._states)

    def perceptions(self) -> Iterator[tuple[cdr.Float64 | None, float]]:
        """The same of every array of perception."""
        return self._taken(self._perceived) if self._perceived is not None else iter(())

    def stops(self) -> Iterator[tuple[bool | None, float]]:
        """The same of every state of the emergency stop."""
        return self._taken(self._stops) if self._stops is not None else iter(())

    def _taken(self, reader: DataReader) -> Iterator[Any]:
        for sample in reader.take(N=DEPTH):
            if isinstance(sample, self._messages.Malformed):
                yield None, np.nan
            elif isinstance(sample, self._messages.Read):
                yield sample.value, 1e-9 * sample.sample_info.source_timestamp

    def rivals(self) -> int:
        """Publishers of the command's topic other than this one: somebody else who moves the robot. 0 for
        one that does not publish: they do not fight.
        """
        if self._writer is None:
            return 0
        found = self._publications.read(N=DISCOVERED, condition=self._alive)
        own, topic = self._participant.guid, self._command_topic
        return sum(item.topic_name == topic and item.participant_key != own for item in found)

    def command(self, target: cdr.Float64, period_s: float) -> None:
        """Sends positions [J] in radians or metres, to be reached `period_s` from now."""
        if self._writer is not None:
            self._writer.write(self._message(target, period_s))

    def _message(self, target: cdr.Float64, period_s: float) -> FloatArray | Trajectory:
        values = [float(value) / unit for value, unit in zip(target, self._units, strict=True)]
        types = self._messages
        if not self._trajectories:
            return types.FloatArray(data=values)
        seconds = int(period_s)
        reach = types.Duration(seconds, int((period_s - seconds) * 1e9))
        point = types.TrajectoryPoint(positions=values, time_from_start=reach)
        return types.Trajectory(joint_names=self._names, points=[point])
