"""Flight logs: one MCAP file per episode, readable by Foxglove and by `read_flight`.

Topics `/observation`, `/proposal`, `/command` carry one message per tick, `/guard/transition` one per
change of state. Messages are JSON with a schema; numbers are written so that they read back bit for
bit, and non-finite ones as "NaN", "Infinity" and "-Infinity", which JSON cannot hold as numbers.
Times are seconds of time.monotonic; a message's log time is the same in nanoseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from mtrl.atomic import atomic_file
from mtrl.errors import IntegrityError

from ..guard.guard import Guard, Transition
from ..guard.limits import GuardConfig
from ..realtime.records import Column, FlightRing

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
        (Column.TICK, Column.SCHEDULED, Column.OBSERVED),
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
_TYPES = {Column.TICK: int, Column.PLANNED: bool, Column.FLAGS: int, Column.STATE: int}
"""Type of a column; the others are float."""
_SCHEMA_NAMES = {int: "integer", bool: "boolean", float: "number"}
_METADATA = "mtrl.flight"


@dataclass(frozen=True)
class Flight:
    """The record of one episode; row n of every array is tick n of the policy's loop."""

    task: str
    """Full name of the task."""
    artefact: str
    """Root hash of the artefact."""
    guard: GuardConfig
    """Limits in force."""
    numbers: Float64
    """Shape [N, 10]; the columns of `records.Column`."""
    observation: Float64
    """Native states, [N, D]."""
    proposal: Float64
    """The policy's actions, [N, A]; may hold non-finite values."""
    command: Float64
    """The guard's commands, [N, A]."""

    @staticmethod
    def of(ring: FlightRing, count: int, task: str, artefact: str, guard: GuardConfig) -> Flight:
        """A copy of a ring's first `count` rows."""
        arrays = (ring.numbers, ring.observation, ring.proposal, ring.command)
        return Flight(task, artefact, guard, *(array[:count].copy() for array in arrays))

    def column(self, column: Column) -> Float64:
        """One number per tick, [N]."""
        return self.numbers[:, column]

    @cached_property
    def transitions(self) -> tuple[Transition, ...]:
        """Changes of the guard's state that a replay finds, with their causes."""
        return replay(self)[1]


def replay(flight: Flight) -> tuple[Float64, tuple[Transition, ...]]:
    """Runs the guard again on the recorded observations and proposals.

    Returns commands [N, A], which are bit-equal to `flight.command`, and the changes of state.
    """
    guard = Guard(flight.guard)
    commands = np.zeros_like(flight.command)
    if len(commands):
        guard.arm(float(flight.numbers[0, Column.OBSERVED]))
    for row, numbers in enumerate(flight.numbers):
        guarded = guard.check(
            flight.observation[row],
            float(numbers[Column.OBSERVED]),
            flight.proposal[row],
            float(numbers[Column.INFERENCE_S]),
            float(numbers[Column.READ]),
        )
        commands[row] = guarded.action
    return commands, tuple(guard.transitions)


def write_flight(path: Path, flight: Flight) -> None:
    """Writes the log; runs after the episode, in a process that no robot waits for."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="", library="mtrl")
        channels = {}
        for topic in _TOPICS:
            types = {_name(column): _SCHEMA_NAMES[_TYPES.get(column, float)] for column in topic.columns}
            channels[topic.name] = _channel(writer, topic.name, {**types, topic.field: "array"})
        texts = dict.fromkeys(("before", "after", "cause"), "string")
        channels[_TRANSITION] = _channel(writer, _TRANSITION, {"at": "number", **texts})
        metadata = {
            "task": flight.task,
            "artefact": flight.artefact,
            "guard": json.dumps(asdict(flight.guard)),
            "ticks": str(len(flight.numbers)),
            "state_size": str(flight.observation.shape[1]),
            "action_size": str(flight.command.shape[1]),
        }
        writer.add_metadata(_METADATA, metadata)
        for name, at, message in _messages(flight):
            nanoseconds = round(at * 1e9)
            content = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
            writer.add_message(channels[name], nanoseconds, content, nanoseconds)
        writer.finish()


def read_flight(path: Path) -> Flight:
    """Reads what `write_flight` wrote; raises IntegrityError for a truncated or foreign file."""
    messages: dict[str, list[dict[str, Any]]] = {}
    try:
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            about = {record.name: record.metadata for record in reader.iter_metadata()}[_METADATA]
            for _, channel, message in reader.iter_messages(log_time_order=False):
                messages.setdefault(channel.topic, []).append(json.loads(message.data))
        return _assemble(about, messages)
    except Exception as error:
        # Damaged bytes surface as anything: the container's, the compressor's, JSON's or numpy's errors.
        raise IntegrityError(
            f"{path} is not a whole flight log of mtrl ({type(error).__name__}: {error})"
        ) from error


def _messages(flight: Flight) -> Iterable[tuple[str, float, dict[str, Any]]]:
    for row, numbers in enumerate(flight.numbers):
        for topic in _TOPICS:
            fields = {_name(column): _TYPES.get(column, float)(numbers[column]) for column in topic.columns}
            array = _encode(getattr(flight, topic.array)[row])
            yield topic.name, float(numbers[topic.time]), {**fields, topic.field: array}
    for change in flight.transitions:
        names = {"before": change.before.name, "after": change.after.name, "cause": change.cause}
        yield _TRANSITION, change.at, {"at": change.at, **names}


def _assemble(metadata: dict[str, str], messages: dict[str, list[dict[str, Any]]]) -> Flight:
    limits = json.loads(metadata["guard"])
    ticks = int(metadata["ticks"])
    numbers = np.zeros((ticks, len(Column)))
    arrays = {}
    for topic in _TOPICS:
        found = messages.get(topic.name, [])
        if len(found) != ticks:
            raise ValueError(f"{ticks} ticks announced, {len(found)} messages of {topic.name} found")
        for column in topic.columns:
            numbers[:, column] = [message[_name(column)] for message in found]
        # float() also reads NaN, Infinity and -Infinity
        rows = [[float(value) for value in message[topic.field]] for message in found]
        size = int(metadata["state_size" if topic.field == "state" else "action_size"])
        arrays[topic.array] = np.array(rows, dtype=np.float64).reshape(ticks, size)
    guard = GuardConfig(**{**limits, "hold": tuple(limits["hold"])})
    return Flight(metadata["task"], metadata["artefact"], guard, numbers, **arrays)


def _channel(writer: Writer, topic: str, types: dict[str, str]) -> int:
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in types.items()}
    for described in properties.values():
        if described["type"] == "array":
            described["items"] = {"type": ["number", "string"]}
    schema = {"title": topic.strip("/"), "type": "object", "properties": properties, "required": list(types)}
    schema_id = writer.register_schema(
        name=f"mtrl{topic.replace('/', '.')}", encoding="jsonschema", data=json.dumps(schema).encode()
    )
    return writer.register_channel(topic=topic, message_encoding="json", schema_id=schema_id)


def _name(column: Column) -> str:
    return column.name.lower()


def _encode(values: Float64) -> list[float | str]:
    # json.dumps names non-finite values NaN, Infinity and -Infinity
    return [value if math.isfinite(value) else json.dumps(value) for value in values.tolist()]
