"""What differs between two protocols of a task, field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .records import Json

Protocol = Mapping[str, Json]
"""`Task.protocol` as a result file keeps it."""


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
