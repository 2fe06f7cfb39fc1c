"""Reading ROS 2 messages from bytes that anybody may have sent.

Plain CDR of version 1 in either byte order (DDSI-RTPS 2.5, section 10). Every length is checked against the
bytes that are left before anything is allocated, and a message has to end where its bytes do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

LARGEST = 65_536
"""Bytes of the longest message that is read."""
LONGEST_NAME = 256
"""Bytes of the longest name."""
PADDING = 3
"""Bytes after the last value that fill a message up to a multiple of four."""


@dataclass(frozen=True)
class JointState:
    """sensor_msgs/msg/JointState; velocity and effort are empty where the robot does not send them."""

    stamp: float
    """Seconds since 1970 by the sender's clock; 0 where it does not say."""
    names: tuple[str, ...]
    """N names."""
    position: Float64
    """[N]"""
    velocity: Float64
    """[N] or [0]"""
    effort: Float64
    """[N] or [0]"""


def joint_state(data: bytes) -> JointState:
    """Reads a JointState; raises ValueError for anything else, one of unequal lengths among it."""
    reader = _Reader(data)
    seconds, nanoseconds = reader.number("i"), reader.number("I")
    reader.text()
    names = tuple(reader.text() for _ in range(reader.count(5)))
    position, velocity, effort = reader.floats(), reader.floats(), reader.floats()
    reader.finish()
    if len(position) != len(names) or not {len(velocity), len(effort)} <= {0, len(names)}:
        raise ValueError("its arrays are not as long as its names")
    if len(set(names)) != len(names):
        raise ValueError("a name stands there twice")
    return JointState(seconds + 1e-9 * nanoseconds, names, position, velocity, effort)


def float_array(data: bytes) -> Float64:
    """Reads the numbers [N] of a std_msgs/msg/Float64MultiArray; raises ValueError for anything else."""
    reader = _Reader(data)
    for _ in range(reader.count(13)):
        reader.text()
        reader.number("I")
        reader.number("I")
    reader.number("I")
    values = reader.floats()
    reader.finish()
    return values


def boolean(data: bytes) -> bool:
    """Reads a std_msgs/msg/Bool; raises ValueError for anything else."""
    if (
        len(data) > 4 + 1 + PADDING
        or data[:1] != b"\0"
        or data[1:2] > b"\1"
        or data[4:5] not in (b"\0", b"\1")
    ):
        raise ValueError("it is no Bool")
    return data[4] == 1


class _Reader:
    def __init__(self, data: bytes) -> None:
        if not 4 <= len(data) <= LARGEST:
            raise ValueError(f"{len(data)} bytes; expected 4 to {LARGEST}")
        if data[0] != 0 or data[1] > 1:
            raise ValueError(f"encoding {data[0]}.{data[1]}; expected plain CDR")
        self._order = "<" if data[1] else ">"
        self._data = data
        self._at = 4

    def _take(self, size: int, alignment: int) -> int:
        """Where `size` bytes begin; they are there."""
        begin = self._at + (4 - self._at) % alignment
        if begin + size > len(self._data):
            raise ValueError("it ends too early")
        self._at = begin + size
        return begin

    def number(self, code: str) -> int:
        """Four bytes: "i" or "I"."""
        value: int = struct.unpack_from(self._order + code, self._data, self._take(4, 4))[0]
        return value

    def count(self, size: int) -> int:
        """The length of a sequence whose entries take `size` bytes or more."""
        count = self.number("I")
        if count * size > len(self._data) - self._at:
            raise ValueError(f"a sequence of {count} entries does not fit into it")
        return count

    def text(self) -> str:
        """A string; its length counts the zero at its end."""
        length = self.count(1)
        if length > LONGEST_NAME:
            raise ValueError(f"a text of {length} bytes; expected at most {LONGEST_NAME}")
        begin = self._take(length, 1)
        content = self._data[begin : begin + length]
        if content[-1:] not in (b"\0", b""):
            raise ValueError("a text has no end")
        return content[:-1].decode("utf-8")

    def floats(self) -> Float64:
        """A sequence of doubles; an empty one is not aligned."""
        count = self.count(8)
        begin = self._take(8 * count, 8) if count else self._at
        values = np.frombuffer(self._data, dtype=self._order + "f8", count=count, offset=begin)
        return values.astype(np.float64)

    def finish(self) -> None:
        if len(self._data) - self._at > PADDING:
            raise ValueError(f"{len(self._data) - self._at} bytes follow its last value")
