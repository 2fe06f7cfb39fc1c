"""Messages between this process and its worker processes: a JSON header and raw arrays, no pickle.

A frame is the header's length (8 bytes, little endian), the header, and the bytes of each array in the
order in which the header lists them. The header is an object; its key "arrays" belongs to the frame.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtrl.errors import IntegrityError

Arrays = Mapping[str, npt.NDArray[Any]]

_LENGTH = 8
_KINDS = "biuf"
"""Array kinds that may travel: bool, integers, floats; never objects."""


def pack_frame(header: Mapping[str, Any], arrays: Arrays) -> list[bytes | memoryview]:
    """One frame in pieces; an array that lies in one piece is not copied.

    Raises TypeError for a header that is not JSON-able (NumPy's numbers are) and for arrays of objects.
    """
    # `ascontiguousarray` would make a row of a single number
    kept = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    for name, values in kept.items():
        if values.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} has type {values.dtype}; only numbers and flags travel")
    listed = [[name, values.dtype.str, list(values.shape)] for name, values in kept.items()]
    text = json.dumps({**header, "arrays": listed}, default=_plain).encode()
    pieces: list[bytes | memoryview] = [len(text).to_bytes(_LENGTH, "little"), text]
    pieces += [values.reshape(-1).view(np.uint8).data for values in kept.values() if values.size]
    return pieces


def write_frame(stream: BinaryIO, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes what `pack_frame` made, and flushes."""
    stream.writelines(pieces)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The next frame; raises EOFError when the other side is gone, IntegrityError for what is no frame."""
    length = int.from_bytes(_exactly(stream, _LENGTH), "little")
    header = json.loads(_exactly(stream, length))
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, code, shape in header.pop("arrays"):
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS:
            raise IntegrityError(f"array {name!r} has type {code}; expected numbers or flags")
        values = np.empty(math.prod(shape), dtype=dtype)
        if values.size:
            _fill(stream, values.view(np.uint8).data)
        arrays[name] = values.reshape(shape)
    return header, arrays


def _plain(value: object) -> object:
    """NumPy's numbers as Python's; called for what JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a message to another process holds plain values; got {type(value).__name__} {value!r}")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    buffer = bytearray(count)
    _fill(stream, memoryview(buffer))
    return bytes(buffer)


def _fill(stream: BinaryIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]  # buffered streams have it
        if not count:
            raise EOFError("the other process ended")
        done += count
