"""Flight logs: one MCAP file per episode with ROS 2's schemas, read by Foxglove, rosbags and `read_flight`.

| topic | type | a message |
|---|---|---|
| `/observation`, `/proposal`, `/command` | `mtrl_msgs/msg/...` | per tick |
| `/guard/transition` | `mtrl_msgs/msg/Transition` | per change of the guard's state |
| `/joint_states` | `sensor_msgs/msg/JointState` | per tick of a robot of joints: measured |
| `/joint_commands` | `trajectory_msgs/msg/JointTrajectory` | per tick of one: commanded |
| `/joint_guard` | `mtrl_msgs/msg/JointGuard` | per tick of one: what `mtrl replay` needs |

Times in messages are seconds of time.monotonic; a message's stamp and log time are the same moment by the
wall clock, in nanoseconds since 1970. What is known before the flight is in the file's metadata, a robot's
file and its model as attachments.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from mcap.records import Attachment, Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from mtrl.atomic import atomic_file
from mtrl.reading import reading
from mtrl.structured import build

from ..guard.limits import GuardConfig
from ..realtime.records import Column
from .flight import Flight, GuardReplay
from .messages import (
    JOINT_STATE,
    JOINT_TRAJECTORY,
    Definition,
    joint_state,
    joint_trajectory,
    standard_schema,
)

Float64 = npt.NDArray[np.float64]


class _Topic(NamedTuple):
    """One message per tick."""

    name: str
    type: str
    """Name of the message in mtrl_msgs."""
    time: Column
    """Log time of the message."""
    columns: tuple[Column, ...]
    """Fields of the message, called as the columns in lower case."""
    field: str
    """Field of the array, after the columns."""
    array: str
    """Attribute of `Flight` that holds the array."""

    @property
    def definition(self) -> Definition:
        """Its message."""
        types = {_name(column): "int64" if column in _WHOLE else "float64" for column in self.columns}
        return Definition(f"mtrl_msgs/msg/{self.type}", {**types, self.field: "float64[]"})


_WHOLE = (Column.TICK, Column.FLAGS, Column.STATE, Column.BREACH)
"""Columns of whole numbers."""
_TOPICS = (
    _Topic(
        "/observation",
        "Observation",
        Column.OBSERVED,
        (Column.TICK, Column.SCHEDULED, Column.OBSERVED, Column.BREACH),
        "state",
        "observation",
    ),
    _Topic(
        "/proposal",
        "Proposal",
        Column.INFERRED,
        (Column.TICK, Column.READ, Column.INFERRED, Column.INFERENCE_S, Column.PLANNED),
        "action",
        "proposal",
    ),
    _Topic(
        "/command",
        "Command",
        Column.SENT,
        (Column.TICK, Column.SENT, Column.FLAGS, Column.STATE),
        "action",
        "command",
    ),
)
_JOINTS = _Topic("/joint_guard", "JointGuard", Column.OBSERVED, (Column.TICK,), "values", "joints")
_TRANSITION = "/guard/transition"
_CHANGE = Definition(
    "mtrl_msgs/msg/Transition", {"at": "float64", **dict.fromkeys(("before", "after", "cause"), "string")}
)
_MEASURED, _COMMANDED = "/joint_states", "/joint_commands"
LATEST_NS = 2**31 * 10**9 - 1
"""Last time that ROS 2 can write, in nanoseconds since 1970."""
_METADATA = "mtrl.flight"
_END = "mtrl.flight.end"
_SITE, _MODEL = "site.json", "model.xml"


class FlightWriter:
    """Appends to a flight log while the flight goes on.

    What was flushed is read back by `read_flight(path, unfinished=True)` however this process ends.
    """

    def __init__(self, file: BinaryIO, flight: Flight) -> None:
        """Begins the log of `flight`, whose rows, if any, are the first ones, in an empty file."""
        self._file = file
        self._writer = Writer(file, compression=CompressionType.ZSTD, enable_data_crcs=True)
        self._writer.start(profile="ros2", library="mtrl")
        self._names = flight.names
        self._topics = (*_TOPICS, _JOINTS) if self._names else _TOPICS
        self._definitions = {topic.name: topic.definition for topic in self._topics} | {_TRANSITION: _CHANGE}
        schemas = {name: (message.name, message.schema) for name, message in self._definitions.items()}
        if self._names:
            schemas |= {
                _MEASURED: standard_schema(JOINT_STATE),
                _COMMANDED: standard_schema(JOINT_TRAJECTORY),
            }
        self._channels = {topic: self._channel(topic, *schema) for topic, schema in schemas.items()}
        self._reach_ns = round(1e9 / flight.rate_hz) if flight.rate_hz else 0
        self._clock_ns = flight.clock_ns
        self._replay = GuardReplay(flight.guard)
        self._rows = 0
        metadata = {
            "task": flight.task,
            "artefact": flight.artefact,
            "guard": json.dumps(asdict(flight.guard)),
            "state_size": str(flight.observation.shape[1]),
            "action_size": str(flight.command.shape[1]),
            "clock_ns": str(flight.clock_ns),
            "mode": flight.mode,
            "joints": json.dumps(flight.names),
            "joint_words": str(flight.joints.shape[1]),
            "rate_hz": repr(flight.rate_hz),
        }
        self._writer.add_metadata(_METADATA, metadata)
        for name, text in ((_SITE, flight.site), (_MODEL, flight.model)):
            if text:
                kind = "application/json" if name == _SITE else "application/xml"
                self._writer.add_attachment(flight.clock_ns, flight.clock_ns, name, kind, text.encode())
        self.append(flight)

    def append(self, rows: Flight) -> None:
        """Adds the rows of a flight, and the changes of the guard's state that they lead to."""
        changes = self._replay.transitions
        for row, numbers in enumerate(rows.numbers):
            for topic in self._topics:
                whole = {
                    _name(c): int(numbers[c]) if c in _WHOLE else float(numbers[c]) for c in topic.columns
                }
                values = {**whole, topic.field: getattr(rows, topic.array)[row]}
                at = self._wall_ns(float(numbers[topic.time]))
                self._add(topic.name, at, self._definitions[topic.name].encode(at, values))
            if self._names:
                self._append_joints(numbers, rows.joints[row], rows.command.shape[1])
            known = len(changes)
            self._replay.command(numbers, rows.observation[row], rows.proposal[row])
            for change in changes[known:]:
                names = {"before": change.before.name, "after": change.after.name, "cause": change.cause}
                at = self._wall_ns(change.at)
                self._add(_TRANSITION, at, _CHANGE.encode(at, {"at": change.at, **names}))
        self._rows += len(rows.numbers)

    def _append_joints(self, numbers: Float64, joints: Float64, actions: int) -> None:
        """What a robot of joints measured and was commanded, for other tools to read."""
        position, velocity, effort, sent, _ = np.split(joints[actions:], np.arange(1, 5) * len(self._names))
        at = self._wall_ns(float(numbers[Column.OBSERVED]))
        self._add(_MEASURED, at, joint_state(at, self._names, (position, velocity, effort)))
        self._add(_COMMANDED, at, joint_trajectory(at, self._names, sent, self._reach_ns))

    def flush(self) -> None:
        """Hands what was appended to the system: the end of this process does not lose it."""
        self._writer.flush()

    def close(self, ending: str) -> None:
        """Finishes the log with what ended the episode, and waits until the disk has it."""
        self._writer.flush()
        self._writer.add_metadata(_END, {"ending": ending, "ticks": str(self._rows)})
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())

    def _wall_ns(self, at: float) -> int:
        # a robot may lie about its clock; what it said is in the message
        nanoseconds = (round(at * 1e9) if math.isfinite(at) else 0) + self._clock_ns
        return min(max(nanoseconds, 0), LATEST_NS)

    def _add(self, topic: str, nanoseconds: int, content: bytes) -> None:
        self._writer.add_message(self._channels[topic], nanoseconds, content, nanoseconds)

    def _channel(self, topic: str, name: str, schema: bytes) -> int:
        schema_id = self._writer.register_schema(name=name, encoding="ros2msg", data=schema)
        return self._writer.register_channel(topic=topic, message_encoding="cdr", schema_id=schema_id)


def write_flight(path: Path, flight: Flight) -> None:
    """Writes a whole flight at once, or nothing."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        FlightWriter(file, flight).close(flight.ending)


def read_flight(path: Path, unfinished: bool = False) -> Flight:
    """Reads a flight log; raises IntegrityError for a truncated or foreign file.

    `unfinished`: takes the whole ticks of a log whose writer was killed, up to its last flush.
    """
    metadata: dict[str, dict[str, str]] = {}
    channels: dict[int, str] = {}
    attached: dict[str, str] = {}
    definitions = {topic.name: topic.definition for topic in (*_TOPICS, _JOINTS)}
    messages: dict[str, list[dict[str, Any]]] = {name: [] for name in definitions}
    advice = "" if unfinished else "read_flight(path, unfinished=True) reads what is whole of it"
    with reading(path, "a whole flight log of mtrl", advice), path.open("rb") as file:
        with contextlib.suppress(Exception) if unfinished else contextlib.nullcontext():
            for record in StreamReader(file, validate_crcs=True).records:
                if isinstance(record, Metadata):
                    metadata[record.name] = record.metadata
                elif isinstance(record, Channel):
                    channels[record.id] = record.topic
                elif isinstance(record, Message):
                    topic = channels[record.channel_id]
                    if topic in definitions:
                        messages[topic].append(definitions[topic].decode(record.data))
                elif isinstance(record, Attachment):
                    attached[record.name] = record.data.decode()
        return _assemble(metadata, messages, attached, unfinished)


def _assemble(
    metadata: dict[str, dict[str, str]],
    messages: dict[str, list[dict[str, Any]]],
    attached: dict[str, str],
    unfinished: bool,
) -> Flight:
    about, end = metadata[_METADATA], metadata.get(_END)
    names = tuple(json.loads(about["joints"]))
    topics = (*_TOPICS, _JOINTS) if names else _TOPICS
    counts = {len(messages[topic.name]) for topic in topics}
    if end is None and not unfinished:
        raise ValueError("its end is missing")
    if end is not None and counts != {int(end["ticks"])}:
        raise ValueError(f"{end['ticks']} ticks announced, {sorted(counts)} found")
    ticks = min(counts)
    numbers = np.zeros((ticks, len(Column)))
    sizes = {"state": "state_size", "action": "action_size", "values": "joint_words"}
    arrays = {"joints": np.zeros((ticks, 0))}
    for topic in topics:
        found = messages[topic.name][:ticks]
        for column in topic.columns:
            numbers[:, column] = [message[_name(column)] for message in found]
        size = int(about[sizes[topic.field]])
        rows = [message[topic.field] for message in found]
        arrays[topic.array] = np.array(rows, dtype=np.float64).reshape(ticks, size)
    return Flight(
        about["task"],
        about["artefact"],
        build(GuardConfig, json.loads(about["guard"]), "guard"),
        numbers,
        **arrays,
        clock_ns=int(about["clock_ns"]),
        mode=about["mode"],
        ending="" if end is None else end["ending"],
        names=names,
        site=attached.get(_SITE, ""),
        model=attached.get(_MODEL, ""),
        rate_hz=float(about["rate_hz"]),
    )


def _name(column: Column) -> str:
    return column.name.lower()
