"""Flight logs: one MCAP file per episode, readable by Foxglove and by `read_flight`.

Topics `/observation`, `/proposal`, `/command` carry one message per tick, `/guard/transition` one per
change of state. Messages are JSON with a schema; numbers are written so that they read back bit for
bit, and non-finite ones as "NaN", "Infinity" and "-Infinity", which JSON cannot hold as numbers.
Times in messages are seconds of time.monotonic; a message's log time is the same moment by the wall clock, in
nanoseconds since 1970.
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
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from mtrl.atomic import atomic_file
from mtrl.reading import reading
from mtrl.structured import build

from ..guard.limits import GuardConfig
from ..realtime.records import Column
from .flight import Flight, GuardReplay

Float64 = npt.NDArray[np.float64]


class _Topic(NamedTuple):
    """One message per tick."""

    name: str
    time: Column
    """Log time of the message."""
    columns: tuple[Column, ...]
    """Fields of the message, called as the columns in lower case."""
    field: str
    """Field of the array, after the columns."""
    array: str
    """Attribute of `Flight` that holds the array."""


_TOPICS = (
    _Topic(
        "/observation",
        Column.OBSERVED,
        (Column.TICK, Column.SCHEDULED, Column.OBSERVED, Column.BREACH),
        "state",
        "observation",
    ),
    _Topic(
        "/proposal",
        Column.INFERRED,
        (Column.TICK, Column.READ, Column.INFERRED, Column.INFERENCE_S, Column.PLANNED),
        "action",
        "proposal",
    ),
    _Topic(
        "/command", Column.SENT, (Column.TICK, Column.SENT, Column.FLAGS, Column.STATE), "action", "command"
    ),
)
_TRANSITION = "/guard/transition"
_TYPES = {Column.TICK: int, Column.PLANNED: bool, Column.FLAGS: int, Column.STATE: int, Column.BREACH: int}
"""Type of a column; the others are float."""
_SCHEMA_NAMES = {int: "integer", bool: "boolean", float: "number"}
_METADATA = "mtrl.flight"
_END = "mtrl.flight.end"


class FlightWriter:
    """Appends to a flight log while the flight goes on.

    What was flushed is read back by `read_flight(path, unfinished=True)` however this process ends.
    """

    def __init__(self, file: BinaryIO, flight: Flight) -> None:
        """Begins the log of `flight`, whose rows, if any, are the first ones, in an empty file."""
        self._file = file
        self._writer = Writer(file, compression=CompressionType.ZSTD, enable_data_crcs=True)
        self._writer.start(profile="", library="mtrl")
        self._channels = {}
        for topic in _TOPICS:
            types = {_name(column): _SCHEMA_NAMES[_TYPES.get(column, float)] for column in topic.columns}
            self._channels[topic.name] = _channel(self._writer, topic.name, {**types, topic.field: "array"})
        texts = dict.fromkeys(("before", "after", "cause"), "string")
        self._channels[_TRANSITION] = _channel(self._writer, _TRANSITION, {"at": "number", **texts})
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
        }
        self._writer.add_metadata(_METADATA, metadata)
        self.append(flight)

    def append(self, rows: Flight) -> None:
        """Adds the rows of a flight, and the changes of the guard's state that they lead to."""
        changes = self._replay.transitions
        for row, numbers in enumerate(rows.numbers):
            for topic in _TOPICS:
                columns = {_name(c): _encode(_TYPES.get(c, float)(numbers[c])) for c in topic.columns}
                array = [_encode(value) for value in getattr(rows, topic.array)[row].tolist()]
                self._add(topic.name, float(numbers[topic.time]), {**columns, topic.field: array})
            known = len(changes)
            self._replay.command(numbers, rows.observation[row], rows.proposal[row])
            for change in changes[known:]:
                names = {"before": change.before.name, "after": change.after.name, "cause": change.cause}
                self._add(_TRANSITION, change.at, {"at": change.at, **names})
        self._rows += len(rows.numbers)

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

    def _add(self, topic: str, at: float, message: dict[str, Any]) -> None:
        nanoseconds = round(at * 1e9) + self._clock_ns
        content = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
        self._writer.add_message(self._channels[topic], nanoseconds, content, nanoseconds)


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
    messages: dict[str, list[dict[str, Any]]] = {topic.name: [] for topic in _TOPICS}
    advice = "" if unfinished else "read_flight(path, unfinished=True) reads what is whole of it"
    with reading(path, "a whole flight log of mtrl", advice), path.open("rb") as file:
        with contextlib.suppress(Exception) if unfinished else contextlib.nullcontext():
            for record in StreamReader(file, validate_crcs=True).records:
                if isinstance(record, Metadata):
                    metadata[record.name] = record.metadata
                elif isinstance(record, Channel):
                    channels[record.id] = record.topic
                elif isinstance(record, Message):
                    messages.setdefault(channels[record.channel_id], []).append(json.loads(record.data))
        return _assemble(metadata, messages, unfinished)


def _assemble(
    metadata: dict[str, dict[str, str]], messages: dict[str, list[dict[str, Any]]], unfinished: bool
) -> Flight:
    about, end = metadata[_METADATA], metadata.get(_END)
    counts = {len(messages[topic.name]) for topic in _TOPICS}
    if end is None and not unfinished:
        raise ValueError("its end is missing")
    if end is not None and counts != {int(end["ticks"])}:
        raise ValueError(f"{end['ticks']} ticks announced, {sorted(counts)} found")
    ticks = min(counts)
    numbers = np.zeros((ticks, len(Column)))
    arrays = {}
    for topic in _TOPICS:
        found = messages[topic.name][:ticks]
        for column in topic.columns:
            # float() also reads NaN, Infinity and -Infinity
            numbers[:, column] = [float(message[_name(column)]) for message in found]
        rows = [[float(value) for value in message[topic.field]] for message in found]
        size = int(about["state_size" if topic.field == "state" else "action_size"])
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
    )


def _channel(writer: Writer, topic: str, types: dict[str, str]) -> int:
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in types.items()}
    for described in properties.values():
        if described["type"] == "array":
            described["items"] = {"type": ["number", "string"]}
        elif described["type"] == "number":
            described["type"] = ["number", "string"]
    schema = {"title": topic.strip("/"), "type": "object", "properties": properties, "required": list(types)}
    schema_id = writer.register_schema(
        name=f"mtrl{topic.replace('/', '.')}", encoding="jsonschema", data=json.dumps(schema).encode()
    )
    return writer.register_channel(topic=topic, message_encoding="json", schema_id=schema_id)


def _name(column: Column) -> str:
    return column.name.lower()


def _encode(value: float) -> float | str:
    # json.dumps names non-finite values NaN, Infinity and -Infinity
    return value if math.isfinite(value) else json.dumps(value)
