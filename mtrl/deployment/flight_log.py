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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from mtrl.errors import IntegrityError

from .flight_ring import Column, FlightRing
from .guard import Guard, GuardConfig, Transition
from .policy_loop import ARM_CAUSES

Float64 = npt.NDArray[np.float64]

_TOPICS: dict[str, dict[str, str]] = {
    "/observation": {"tick": "integer", "scheduled": "number", "observed": "number", "state": "array"},
    "/proposal": {
        "tick": "integer", "read": "number", "inferred": "number", "inference_s": "number",
        "planned": "boolean", "action": "array",
    },
    "/command": {
        "tick": "integer", "sent": "number", "flags": "integer", "state": "integer", "action": "array",
    },
    "/guard/transition": {"at": "number", "before": "string", "after": "string", "cause": "string"},
}  # fmt: skip
_METADATA = "mtrl.flight"


@dataclass(frozen=True)
class Flight:
    """One episode as it was flown; row n of every array is tick n of the policy's loop."""

    task: str
    """Full name of the task."""
    artefact: str
    """Root hash of the artefact."""
    guard: GuardConfig
    """Limits in force."""
    numbers: Float64
    """Shape [N, 10]; the columns of `flight_ring.Column`."""
    observation: Float64
    """Native states, [N, D]."""
    proposal: Float64
    """What the policy proposed, [N, A]; may hold non-finite values."""
    command: Float64
    """What was sent, [N, A]."""
    transitions: tuple[Transition, ...] = ()
    """Changes of the guard's state, with their causes."""

    @staticmethod
    def of(ring: FlightRing, count: int, task: str, artefact: str, guard: GuardConfig) -> Flight:
        """A copy of a ring's first `count` rows, with the transitions that a replay finds."""
        flight = Flight(
            task,
            artefact,
            guard,
            ring.rows[:count, : len(Column)].copy(),
            ring.observation(count).copy(),
            ring.proposal(count).copy(),
            ring.command(count).copy(),
        )
        return replace(flight, transitions=replay(flight)[1])

    def column(self, column: Column) -> Float64:
        """One number per tick, [N]."""
        return self.numbers[:, column]


def replay(flight: Flight) -> tuple[Float64, tuple[Transition, ...]]:
    """Runs the guard again over what the log holds.

    Returns commands [N, A], which are bit-equal to `flight.command`, and the changes of state.
    """
    guard = Guard(flight.guard)
    commands = np.zeros_like(flight.command)
    if len(commands):
        guard.arm(float(flight.numbers[0, Column.OBSERVED]), ARM_CAUSES)
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
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="", library="mtrl")
        channels = {topic: _channel(writer, topic, fields) for topic, fields in _TOPICS.items()}
        about = {"task": flight.task, "artefact": flight.artefact, "guard": json.dumps(asdict(flight.guard))}
        sizes = {
            "state_size": str(flight.observation.shape[1]),
            "action_size": str(flight.command.shape[1]),
        }
        writer.add_metadata(_METADATA, {**about, "ticks": str(len(flight.numbers)), **sizes})
        for topic, at, message in _messages(flight):
            nanoseconds = round(at * 1e9)
            content = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
            writer.add_message(channels[topic], nanoseconds, content, nanoseconds)
        writer.finish()


def read_flight(path: Path) -> Flight:
    """Reads what `write_flight` wrote; raises IntegrityError for a truncated or foreign file."""
    messages: dict[str, list[dict[str, Any]]] = {topic: [] for topic in _TOPICS}
    try:
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            about = {record.name: record.metadata for record in reader.iter_metadata()}[_METADATA]
            for _, channel, message in reader.iter_messages(log_time_order=False):
                messages[channel.topic].append(json.loads(message.data))
        return _assemble(about, messages)
    except Exception as error:
        # Damaged bytes surface as anything: the container's, the compressor's, JSON's or numpy's errors.
        raise IntegrityError(
            f"{path} is not a whole flight log of mtrl ({type(error).__name__}: {error})"
        ) from error


def _messages(flight: Flight) -> Iterable[tuple[str, float, dict[str, Any]]]:
    for numbers, state, proposal, command in zip(
        flight.numbers, flight.observation, flight.proposal, flight.command, strict=True
    ):
        n = [float(value) for value in numbers]
        tick = int(n[Column.TICK])
        seen = {"scheduled": n[Column.SCHEDULED], "observed": n[Column.OBSERVED], "state": _encode(state)}
        yield "/observation", n[Column.OBSERVED], {"tick": tick, **seen}
        timing = {
            "read": n[Column.READ],
            "inferred": n[Column.INFERRED],
            "inference_s": n[Column.INFERENCE_S],
        }
        proposed = {"planned": bool(n[Column.PLANNED]), "action": _encode(proposal)}
        yield "/proposal", n[Column.INFERRED], {"tick": tick, **timing, **proposed}
        told = {"flags": int(n[Column.FLAGS]), "state": int(n[Column.STATE]), "action": _encode(command)}
        yield "/command", n[Column.SENT], {"tick": tick, "sent": n[Column.SENT], **told}
    for change in flight.transitions:
        names = {"before": change.before.name, "after": change.after.name, "cause": change.cause}
        yield "/guard/transition", change.at, {"at": change.at, **names}


def _assemble(about: dict[str, str], messages: dict[str, list[dict[str, Any]]]) -> Flight:
    seen, proposed, told = (messages[topic] for topic in ("/observation", "/proposal", "/command"))
    limits = json.loads(about["guard"])
    guard = GuardConfig(**{**limits, "hold": tuple(limits["hold"])})
    if not len(seen) == len(proposed) == len(told) == int(about["ticks"]):
        raise ValueError(f"{about['ticks']} ticks announced, {len(seen)}, {len(proposed)}, {len(told)} found")
    numbers = np.zeros((len(seen), len(Column)))
    for row, (a, b, c) in enumerate(zip(seen, proposed, told, strict=True)):
        numbers[row] = (
            a["tick"], a["scheduled"], a["observed"], b["read"], b["inferred"], c["sent"], b["inference_s"],
            b["planned"], c["flags"], c["state"],
        )  # fmt: skip
    flight = Flight(
        about["task"],
        about["artefact"],
        guard,
        numbers,
        _decode([message["state"] for message in seen], int(about["state_size"])),
        _decode([message["action"] for message in proposed], int(about["action_size"])),
        _decode([message["action"] for message in told], int(about["action_size"])),
    )
    return replace(flight, transitions=replay(flight)[1])


def _channel(writer: Writer, topic: str, fields: dict[str, str]) -> int:
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in fields.items()}
    for described in properties.values():
        if described["type"] == "array":
            described["items"] = {"type": ["number", "string"]}
    schema = {"title": topic.strip("/"), "type": "object", "properties": properties, "required": list(fields)}
    schema_id = writer.register_schema(
        name=f"mtrl{topic.replace('/', '.')}", encoding="jsonschema", data=json.dumps(schema).encode()
    )
    return writer.register_channel(topic=topic, message_encoding="json", schema_id=schema_id)


def _encode(values: Float64) -> list[float | str]:
    return [value if math.isfinite(value) else _name(value) for value in values.tolist()]


def _name(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _decode(rows: list[list[float | str]], width: int) -> Float64:
    # float() reads the three names too
    return np.array([[float(value) for value in row] for row in rows], dtype=np.float64).reshape(
        len(rows), width
    )
