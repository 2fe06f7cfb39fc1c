"""The fields of a task's protocol as a result file keeps them, so that a difference has a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from mtrl.tasks import Task

from .records import Json

Protocol = Mapping[str, Json]
"""Field of a task -> its value, as JSON says it."""


def protocol_fields(task: Task) -> dict[str, Json]:
    """Every field behind `task.protocol_hash`; lists where the task has tuples."""
    fields = asdict(task)
    del fields["end_on_success"]
    plain: dict[str, Json] = json.loads(json.dumps(fields))
    return plain


def hash_of_protocol(fields: Protocol) -> str:
    """The protocol hash of these fields: equal to `task.protocol_hash` for `protocol_fields(task)`."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def protocol_differences(first: Protocol, second: Protocol) -> tuple[str, ...]:
    """One phrase per field that differs, such as "options.horizon is 200 against 500"."""
    ours, theirs = dict(_flat(first)), dict(_flat(second))
    return tuple(
        f"{key} is {_said(ours, key)} against {_said(theirs, key)}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key) or (key in ours) != (key in theirs)
    )


def _flat(fields: Protocol, prefix: str = "") -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []
    for key, value in fields.items():
        if key == "options" and not prefix and isinstance(value, list):
            pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
            value = {str(name): setting for name, setting in pairs}
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _said(fields: dict[str, Json], key: str) -> str:
    return json.dumps(fields[key]) if key in fields else "not set"
