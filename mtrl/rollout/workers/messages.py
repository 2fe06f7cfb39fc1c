"""Messages between this process and its worker processes: values as JSON and raw arrays, no pickle.

A frame is the header's length (8 bytes, little endian), the header, and the bytes of each array in the
order in which the header lists them. The header is a JSON object; its key "arrays" belongs to the frame.

In a described value a list is an array and plain values are themselves; all else is an object of one key:
{"array": name}, {"tuple": [...]}, {"dict": {...}}, or the name of a class below with its fields.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import ConfigError, EnvironmentFault, IntegrityError, MtrlError
from mtrl.tasks import Task, TaskSet

from ..episodes import Episodes, EpisodeSummary
from ..fragment import Fragment
from ..job import BrokenJobEpisode, EpisodeJob, JobResult
from ..policy import Acting, PolicySnapshot, Version
from .calls import Collect, LanesState, Measure, Play, RestoreLane
from .worker import LaneAssignment

Arrays = dict[str, npt.NDArray[Any]]

_LENGTH = 8
_KINDS = "biuf"
"""Array kinds that may be sent: bool, integers, floats; never objects."""


@dataclasses.dataclass(frozen=True)
class RemoteError:
    """An error that a worker raised, as plain data: not every error survives pickling."""

    module: str
    kind: str
    """Class of an error of mtrl or of a plug-in; empty for a bug."""
    message: str
    fields: dict[str, Any]
    trace: str

    @staticmethod
    def of(error: BaseException) -> RemoteError:
        """Takes the error apart; call it while the error is handled."""
        trace = traceback.format_exc()
        if not isinstance(error, MtrlError):
            return RemoteError("", "", str(error), {}, trace)
        kind = type(error)
        return RemoteError(kind.__module__, kind.__name__, str(error), dict(error.__dict__), trace)

    def error(self) -> Exception:
        """The same error with the worker's traceback as a note, as MtrlError where its class is not loaded
        here; RuntimeError for a bug.
        """
        if not self.kind:
            return RuntimeError(f"a bug in a worker:\n{self.trace}")
        found = getattr(sys.modules.get(self.module), self.kind, None)
        kind = found if isinstance(found, type) and issubclass(found, MtrlError) else MtrlError
        again: MtrlError = kind.__new__(kind)
        again.args = (self.message,)
        again.__dict__.update(self.fields)
        if not isinstance(again, EnvironmentFault):
            again.add_note(f"raised in a worker:\n{self.trace}")
        return again


_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Acting, BrokenJobEpisode, Collect, EpisodeJob, EpisodeSummary, Episodes, Fragment, JobResult,
        LaneAssignment, LanesState, Measure, Play, PolicySnapshot, RemoteError, RestoreLane, Version,
    )
}  # fmt: skip


def describe(value: object) -> tuple[Any, Arrays]:
    """JSON and arrays of a value, which are not copied; raises TypeError for a class that is not sent."""
    arrays: Arrays = {}

    def plain(node: object) -> object:
        if isinstance(node, np.ndarray):
            arrays[name := f"{len(arrays)}"] = node
            return {"array": name}
        if isinstance(node, Mapping):
            return {"dict": {key: plain(item) for key, item in node.items()}}
        if type(node) is tuple:
            return {"tuple": [plain(item) for item in node]}
        if isinstance(node, list):
            return [plain(item) for item in node]
        if isinstance(node, Version) or dataclasses.is_dataclass(node):
            kind = type(node).__name__
            if kind not in _CLASSES:
                raise TypeError(f"a message to another process holds {', '.join(_CLASSES)}; got {kind}")
            names = node._fields if isinstance(node, Version) else [f.name for f in dataclasses.fields(node)]
            return {kind: {name: plain(getattr(node, name)) for name in names}}
        return node

    return plain(value), arrays


def rebuild(tree: Any, arrays: Arrays) -> Any:  # noqa: ANN401 - whatever was described
    """The inverse of `describe`."""
    if isinstance(tree, list):
        return [rebuild(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(rebuild(item, arrays) for item in content)
    fields = {key: rebuild(item, arrays) for key, item in content.items()}
    return fields if kind == "dict" else _CLASSES[kind](**fields)


def describe_tasks(tasks: TaskSet) -> list[dict[str, Any]]:
    """Tasks by name and settings; the worker looks them up as this process did."""
    return [
        {
            "name": task.name,
            "options": dict(task.options),
            "end_on_success": task.end_on_success,
            "protocol": task.protocol_hash,
        }
        for task in tasks
    ]


def rebuild_tasks(described: list[dict[str, Any]]) -> TaskSet:
    """The tasks; raises ConfigError when they are others here, as when a suite was registered by hand."""
    found: list[Task] = []
    for entry in described:
        task = registry.task(entry["name"], entry["options"])
        task = dataclasses.replace(task, end_on_success=entry["end_on_success"])
        if task.protocol_hash != entry["protocol"]:
            raise ConfigError(
                f"task {task.name} is another one in a worker process: protocol {task.protocol_hash} against "
                f"{entry['protocol']}. A plug-in that runs in workers declares an entry point"
            )
        found.append(task)
    return TaskSet(found)


def pack_frame(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> list[bytes | memoryview]:
    """One frame in pieces; an array that lies in one piece is not copied.

    Raises TypeError for a header that is not JSON-able (NumPy's numbers are) and for arrays of objects.
    """
    # `ascontiguousarray` would make a row of a single number
    kept = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    for name, values in kept.items():
        if values.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} has type {values.dtype}; expected numbers or flags")
    listed = [[name, values.dtype.str, list(values.shape)] for name, values in kept.items()]
    text = json.dumps({**header, "arrays": listed}, default=_plain).encode()
    pieces: list[bytes | memoryview] = [len(text).to_bytes(_LENGTH, "little"), text]
    pieces += [values.reshape(-1).view(np.uint8).data for values in kept.values() if values.size]
    return pieces


def write_frame(stream: BinaryIO, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes the result of `pack_frame`, and flushes."""
    stream.writelines(pieces)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], Arrays]:
    """The next frame; raises EOFError when the other process has ended, IntegrityError for a wrong frame."""
    length = int.from_bytes(_fill(stream, memoryview(bytearray(_LENGTH))), "little")
    header = json.loads(bytes(_fill(stream, memoryview(bytearray(length)))))
    arrays: Arrays = {}
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
    """NumPy's numbers as Python's; called for what is not JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a message to another process holds plain values; got {type(value).__name__} {value!r}")


def _fill(stream: BinaryIO, view: memoryview) -> memoryview:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]  # buffered streams have it
        if not count:
            raise EOFError("the other process ended")
        done += count
    return view
