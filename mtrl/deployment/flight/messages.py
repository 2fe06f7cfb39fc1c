"""The messages of a flight log: ROS 2 definitions, and plain CDR of version 1 (DDSI-RTPS 2.5, section 10).

A definition of ours is fields of the types of `_PRIMITIVES`; from it follow the schema, the bytes and the
reading, so that the three cannot differ. JointState and JointTrajectory are those of ROS 2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Value = int | float | str | Sequence[float]

_TIME = "builtin_interfaces/Time"
_HEADER = "std_msgs/Header"
_DEFINITIONS = {
    _TIME: "int32 sec\nuint32 nanosec\n",
    "builtin_interfaces/Duration": "int32 sec\nuint32 nanosec\n",
    _HEADER: f"{_TIME} stamp\nstring frame_id\n",
    "trajectory_msgs/JointTrajectoryPoint": "float64[] positions\nfloat64[] velocities\n"
    "float64[] accelerations\nfloat64[] effort\nbuiltin_interfaces/Duration time_from_start\n",
}
_LINE = "=" * 80
_PRIMITIVES = {"int64": "q", "float64": "d"}


class Writer:
    """Little-endian CDR; every value is aligned to its size, counted from behind the header's four bytes."""

    def __init__(self) -> None:
        self._parts = bytearray(b"\0\1\0\0")

    def number(self, code: str, value: float) -> None:
        """A number of `struct`'s type."""
        self._align(struct.calcsize(code))
        self._parts += struct.pack("<" + code, value)

    def time(self, nanoseconds: int) -> None:
        """builtin_interfaces/Time, or Duration."""
        seconds, rest = divmod(nanoseconds, 10**9)
        self.number("i", seconds)
        self.number("I", rest)

    def text(self, value: str) -> None:
        """A string with the zero at its end."""
        content = value.encode() + b"\0"
        self.number("I", len(content))
        self._parts += content

    def texts(self, values: Sequence[str]) -> None:
        """A sequence of strings."""
        self.number("I", len(values))
        for value in values:
            self.text(value)

    def floats(self, values: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """A sequence of doubles; an empty one is not aligned."""
        self.number("I", len(values))
        if len(values):
            self._align(8)
            self._parts += np.asarray(values, dtype="<f8").tobytes()

    def content(self) -> bytes:
        """The message."""
        return bytes(self._parts)

    def _align(self, size: int) -> None:
        self._parts += bytes((4 - len(self._parts)) % size)


class Reader:
    """Reads what `Writer` wrote; raises ValueError or `struct.error` for what is shorter."""

    def __init__(self, data: bytes) -> None:
        if data[:2] != b"\0\1":
            raise ValueError("a message is not little-endian CDR")
        self._data, self._at = data, 4

    def number(self, code: str) -> Any:  # noqa: ANN401 - a number of that type
        """As `Writer.number`."""
        size = struct.calcsize(code)
        self._at += (4 - self._at) % size
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += size
        return value

    def text(self) -> str:
        """As `Writer.text`."""
        end = self._at + 4 + (4 - self._at) % 4 + self.number("I")
        begin, self._at = self._at, end
        if end > len(self._data):
            raise ValueError("a text is longer than its message")
        return self._data[begin : end - 1].decode()

    def floats(self) -> npt.NDArray[np.float64]:
        """As `Writer.floats`."""
        count = self.number("I")
        if count:
            self._at += (4 - self._at) % 8
        begin, self._at = self._at, self._at + 8 * count
        return np.frombuffer(self._data, dtype="<f8", count=count, offset=begin)


@dataclass(frozen=True)
class Definition:
    """A message of ours: its time, then its fields in order."""

    name: str
    """In ROS 2's spelling, "package/msg/Name"."""
    fields: Mapping[str, str]
    """Field -> "int64", "float64", "string" or "float64[]"."""

    @property
    def schema(self) -> bytes:
        """The text of the .msg file, and of those that it needs."""
        own = "".join(f"{kind} {field}\n" for field, kind in self.fields.items())
        return _schema(f"{_TIME} stamp\n{own}", _TIME)

    def encode(self, nanoseconds: int, values: Mapping[str, Value]) -> bytes:
        """The message of a wall-clock time; `values` has every field."""
        writer = Writer()
        writer.time(nanoseconds)
        for field, kind in self.fields.items():
            value: Any = values[field]
            if kind == "string":
                writer.text(value)
            elif kind == "float64[]":
                writer.floats(value)
            else:
                writer.number(_PRIMITIVES[kind], value)
        return writer.content()

    def decode(self, data: bytes) -> dict[str, Any]:
        """The fields of a message."""
        reader = Reader(data)
        reader.number("i"), reader.number("I")
        read = {"string": reader.text, "float64[]": reader.floats}
        return {
            field: read[kind]() if kind in read else reader.number(_PRIMITIVES[kind])
            for field, kind in self.fields.items()
        }


JOINT_STATE = (
    "sensor_msgs/msg/JointState",
    f"{_HEADER} header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n",
    (_HEADER, _TIME),
)
JOINT_TRAJECTORY = (
    "trajectory_msgs/msg/JointTrajectory",
    f"{_HEADER} header\nstring[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points\n",
    (_HEADER, _TIME, "trajectory_msgs/JointTrajectoryPoint", "builtin_interfaces/Duration"),
)


def standard_schema(message: tuple[str, str, tuple[str, ...]]) -> tuple[str, bytes]:
    """Name and schema of one of ROS 2's own messages."""
    name, text, needed = message
    return name, _schema(text, *needed)


def joint_state(nanoseconds: int, names: Sequence[str], measured: Sequence[npt.NDArray[np.float64]]) -> bytes:
    """A JointState; `measured`: position, velocity and effort, [J] each."""
    writer = Writer()
    writer.time(nanoseconds)
    writer.text("")
    writer.texts(names)
    for values in measured:
        writer.floats(values)
    return writer.content()


def joint_trajectory(
    nanoseconds: int, names: Sequence[str], positions: npt.NDArray[np.float64], reach_ns: int
) -> bytes:
    """A JointTrajectory of one point, which is to be reached `reach_ns` later."""
    writer = Writer()
    writer.time(nanoseconds)
    writer.text("")
    writer.texts(names)
    writer.number("I", 1)
    writer.floats(positions)
    for _ in range(3):
        writer.floats(())
    writer.time(reach_ns)
    return writer.content()


def _schema(text: str, *needed: str) -> bytes:
    others = [f"{_LINE}\nMSG: {name}\n{_DEFINITIONS[name]}" for name in needed]
    return "".join([text, *others]).encode()
