"""The decoder of the wire: exact for what is whole, ValueError for everything else."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.deployment.robots.ros2 import cdr

DOUBLES = st.floats(width=64)


def aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def encode(names: list[str], arrays: list[list[float]], order: str = "<", frame: str = "base") -> bytes:
    """A joint state in plain CDR, written for this test from the specification."""

    def text(body: bytes, value: str) -> bytes:
        content = value.encode() + b"\0"
        return aligned(body, 4) + struct.pack(order + "I", len(content)) + content

    body = text(struct.pack(order + "iI", 5, 250_000_000), frame)
    body = aligned(body, 4) + struct.pack(order + "I", len(names))
    for name in names:
        body = text(body, name)
    for values in arrays:
        body = aligned(body, 4) + struct.pack(order + "I", len(values))
        if values:
            body = aligned(body, 8) + struct.pack(f"{order}{len(values)}d", *values)
    return (b"\0\1\0\0" if order == "<" else b"\0\0\0\0") + body


@settings(max_examples=25)
@given(
    st.lists(st.text("abc_é1", max_size=9), unique=True, max_size=7),
    st.data(),
    st.sampled_from("<>"),
    st.booleans(),
)
def test_a_whole_message_is_read_exactly(
    names: list[str], data: st.DataObject, order: str, all_of_it: bool
) -> None:
    arrays = [data.draw(st.lists(DOUBLES, min_size=len(names), max_size=len(names))) for _ in range(3)]
    if not all_of_it:
        arrays[2] = []
    read = cdr.joint_state(encode(names, arrays, order))
    assert (read.stamp, read.names) == (5.25, tuple(names))
    for found, sent in zip((read.position, read.velocity, read.effort), arrays, strict=True):
        assert found.tobytes() == np.array(sent).tobytes()


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(tail: bytes, kept: int) -> None:
    for data in (tail, b"\0\1\0\0" + tail, encode(["a", "b"], [[1.0, 2.0]] * 3)[:kept] + tail):
        for read in (cdr.joint_state, cdr.float_array):
            try:
                read(data)
            except ValueError:
                continue


WHOLE = encode(["a", "b"], [[1.0, 2.0], [], []])


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_every_cut_message_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"ends too early|not fit|not as long|no end|4 to"):
        cdr.joint_state(WHOLE[:cut])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(["a", "b"], [[1.0], [], []]), "not as long"),
        (encode(["a", "b"], [[1.0, 2.0], [1.0], []]), "not as long"),
        (encode(["a", "a"], [[1.0, 2.0], [], []]), "twice"),
        (encode(["a" * 300], [[1.0], [], []]), "text of 301 bytes"),
        (encode(["a"], [[1.0], [], []]) + bytes(8), "8 bytes follow"),
        (b"\0\7" + WHOLE[2:], "expected plain CDR"),
        (WHOLE + bytes(cdr.LARGEST), "expected 4 to"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cdr.joint_state(data)


def test_a_length_that_does_not_fit_costs_nothing() -> None:
    header = b"\0\1\0\0" + struct.pack("<II", 0, 0)
    with pytest.raises(ValueError, match="4294967295 entries does not fit"):
        cdr.float_array(header + struct.pack("<I", 2**32 - 1))
    with pytest.raises(ValueError, match="does not fit"):
        cdr.float_array(b"\0\1\0\0" + struct.pack("<I", 2**32 - 1) + bytes(64))
