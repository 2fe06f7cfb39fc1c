"""Reads our bytes with rosbags, run by the interpreter that has it; `wire_checks.py` starts it.

Standard input: {"messages": [[type, hex], ...], "log": path of a flight log}. Standard output: for every
message its numbers and whether rosbags writes the same bytes, and for every topic of the log the numbers of
each message.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore


def numbers(value: object) -> Iterator[float]:
    """Every number of a message, in the order of its fields, times left out."""
    if isinstance(value, np.ndarray | list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, bool | int | float | np.number):
        yield float(value)
    elif hasattr(value, "__dataclass_fields__") and "nanosec" not in value.__dataclass_fields__:
        for name in value.__dataclass_fields__:
            if not name.startswith("__"):
                yield from numbers(getattr(value, name))


def main() -> None:
    """Reads both."""
    asked = json.load(sys.stdin)
    store, messages, log = get_typestore(Stores.ROS2_JAZZY), [], {}
    for kind, content in asked["messages"]:
        raw = bytes.fromhex(content)
        message = store.deserialize_cdr(raw, kind)
        written = bytes(store.serialize_cdr(message, kind))
        # a writer may fill up to a multiple of four
        messages.append(
            [list(numbers(message)), written == raw[: len(written)] and len(raw) - len(written) < 4]
        )
    with AnyReader([Path(asked["log"])]) as reader:
        for connection, _, raw in reader.messages():
            found = reader.deserialize(raw, connection.msgtype)
            log.setdefault(connection.topic, []).append(list(numbers(found)))
    json.dump({"messages": messages, "log": log}, sys.stdout)


main()
