"""What parent and worker process send each other: tasks, calls, policies, results and errors.

Values travel as JSON and raw arrays, without code. In the JSON a list is an array and plain values are
themselves; all else is an object with one telling key: {"array": name}, {"tuple": [...]}, {"dict": {...}}, or
the name of a class below with its fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl import errors, registry
from mtrl.errors import ConfigError, EnvironmentFault, MtrlError
from mtrl.tasks import Task, TaskSet

from ..episodes import Episodes, EpisodeSummary
from ..fragment import Fragment
from ..job import EpisodeJob, JobResult
from ..policy import Acting, PolicySnapshot, Version
from .calls import Collect, LanesState, Measure, Play, RestoreLane
from .worker import LaneAssignment

Arrays = dict[str, npt.NDArray[Any]]

_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Acting, Collect, EpisodeJob, EpisodeSummary, Episodes, Fragment, JobResult, LaneAssignment,
        LanesState, Measure, Play, PolicySnapshot, RestoreLane, Version,
    )
}  # fmt: skip


def describe(value: object) -> tuple[Any, Arrays]:
    """JSON and arrays of a value, which are not copied; raises TypeError for a class that does not travel."""
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
            names = (
                Version._fields if isinstance(node, Version) else [f.name for f in dataclasses.fields(node)]
            )
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
        task = dataclasses.replace(
            registry.task(entry["name"], entry["options"]), end_on_success=entry["end_on_success"]
        )
        if task.protocol_hash != entry["protocol"]:
            raise ConfigError(
                f"task {task.name} is another one in a worker process: protocol {task.protocol_hash} against "
                f"{entry['protocol']}. A plug-in that runs in workers declares an entry point"
            )
        found.append(task)
    return TaskSet(found)


def describe_error(error: MtrlError, trace: str) -> dict[str, Any]:
    """An error of ours as a header."""
    if isinstance(error, EnvironmentFault):
        return {"reply": "fault", "task": error.task, "when": error.when, "detail": error.detail}
    return {"reply": "mistake", "kind": type(error).__name__, "message": str(error), "trace": trace}


def rebuild_error(header: Mapping[str, Any]) -> Exception:
    """The inverse of `describe_error`, where a class that is not ours becomes MtrlError itself. A
    "bug", which nobody raised on purpose, becomes RuntimeError.
    """
    if header["reply"] == "bug":
        return RuntimeError(f"a bug in a worker process:\n{header['trace']}")
    if header["reply"] == "fault":
        return EnvironmentFault(header["task"], header["when"], header["detail"])
    kind = getattr(errors, header["kind"], MtrlError)
    again: MtrlError = kind.__new__(kind)
    again.args = (header["message"],)
    again.add_note(f"raised in a worker process:\n{header['trace']}")
    return again
