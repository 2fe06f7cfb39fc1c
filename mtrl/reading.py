"""The boundary where files are read that anybody may have written.

A file is bounded before it is read, and whatever goes wrong with it is one IntegrityError that names it:

    with reading(path, "a manifest of mtrl"):
        fields = parse_json(read_bytes(path, MEGABYTE))
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mtrl.errors import IntegrityError, MissingExtraError, MtrlError, ResourceError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a JSON file can hold."""

MEGABYTE = 2**20
JSON_BYTES = 32 * MEGABYTE
"""Largest JSON file, unless its format has another limit."""
VALUES = 2_000_000
"""Most values in one JSON or YAML document; each costs a hundred bytes of memory."""
DEPTH = 64
"""Deepest nesting of a JSON or YAML document."""
SCALAR = 65_536
"""Longest scalar of a YAML document, in characters; some numbers take its square to read."""
INTEGER = 2**63
"""Integers of a JSON document lie below it, their negatives at or above its negative."""

_REASON = 400


@contextlib.contextmanager
def reading(path: Path, what: str, advice: str = "") -> Iterator[None]:
    """Turns every error of the block into an IntegrityError that names the file and the reason.

    `what` completes "is not ..."; `advice` says what to do. A ValueError's text is the reason alone. Only
    reading and checking of `path` belongs into the block: an error of anything else would be blamed on it.
    """
    try:
        yield
    except (IntegrityError, MissingExtraError, ResourceError):
        # files that are named already, and faults of this machine
        raise
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror or _reason(error)}") from error
    except Exception as error:
        then = f"; {advice}" if advice else ""
        raise IntegrityError(f"{path} is not {what} ({_reason(error)}){then}") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises IntegrityError for a larger one and for what is no regular file, before any of it is read.
    """
    # without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        require_size(path, limit, os.fstat(file.fileno()))
        content = file.read(limit + 1)
    if len(content) > limit:
        raise IntegrityError(f"{path} grew beyond {limit:,} bytes while it was read")
    return content


def require_size(path: Path, limit: int, found: os.stat_result | None = None) -> None:
    """Raises IntegrityError unless `path` is a regular file of at most `limit` bytes."""
    found = found or path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityError(f"{path} is not a regular file")
    if found.st_size > limit:
        raise IntegrityError(f"{path} has {found.st_size:,} bytes; expected at most {limit:,}")


def parse_json(content: bytes, *, depth: int = DEPTH, finite: bool = True) -> Json:
    """The value of a strict JSON document in UTF-8: finite numbers, integers of 64 bits, every key once.

    Without `finite` NaN and infinities are read as Python writes them. Raises ValueError with the reason, or
    RecursionError: call it within `reading`.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > VALUES:
        raise ValueError(f"it holds more than {VALUES:,} values")
    value: Json = json.loads(content.decode("utf-8"), object_pairs_hook=_each_key_once)
    for item in _items(value, depth):
        if type(item) is int and not -INTEGER <= item < INTEGER:
            raise ValueError("an integer has more than 64 bits")
        if finite and type(item) is float and not math.isfinite(item):
            raise ValueError(f"{item} is not a JSON number")
    return value


def parse_yaml(content: bytes) -> Any:  # noqa: ANN401 - any configuration
    """The value of a YAML document of plain values: no aliases, no tags, nothing that is replaced later.

    Raises ValueError with the reason, or the YAMLError of the parser: call it within `reading`.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for events, event in enumerate(yaml.parse(content, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it refers to another value by *{event.anchor}; write the value itself")
        if depth > DEPTH or events > VALUES:
            raise ValueError(f"it nests deeper than {DEPTH} or holds more than {VALUES:,} values")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > SCALAR:
            raise ValueError(f"a scalar has {len(event.value):,} characters; expected at most {SCALAR:,}")
    value = yaml.load(content, Loader=loader)
    for item in _items(value, DEPTH):
        if type(item) not in (str, int, float, bool, type(None)):
            raise ValueError(f"it holds a value of type {type(item).__name__}")
    return value


def _each_key_once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"one of the keys {str(list(found))[:80]} stands there twice")
    return found


def _items(value: object, depth: int) -> Iterator[object]:
    """Every scalar of a parsed document, level by level, so that no nesting exhausts the stack."""
    level = [value]
    for _ in range(depth + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    raise ValueError("a key is not text")
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            else:
                yield item
        if not inner:
            return
        level = inner
    raise ValueError(f"it nests deeper than {depth}")


def _reason(error: Exception) -> str:
    """The error in one printable line, as long as a person reads."""
    ours = type(error) is ValueError or isinstance(error, MtrlError)
    text = str(error) if ours else f"{type(error).__name__}: {error}"
    line = "".join(letter if letter.isprintable() else " " for letter in text[: _REASON + 1])
    return line[:_REASON] + "..." if len(line) > _REASON else line
