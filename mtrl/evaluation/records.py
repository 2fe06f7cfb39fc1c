"""Strict JSON records on disk: written whole or not at all, read field by field with clear refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from mtrl.atomic import write_text
from mtrl.errors import ConfigError, IntegrityError
from mtrl.reading import JSON_BYTES, Json, parse_json, read_bytes, reading


def write_record(path: Path, record: Json, *, overwrite: bool = False) -> Path:
    """Writes `record` as JSON with sorted keys; equal records give equal bytes.

    The file appears complete under its name or not at all. Folders are made as needed.

    Raises:
        ExistsError: the file is there and `overwrite` is False.
        ConfigError: the record holds NaN or an infinity, which JSON cannot say.
        ResourceError: the disk refuses.
    """
    try:
        text = json.dumps(record, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError as problem:
        raise ConfigError(
            f"{path.name} cannot be written: every number must be finite ({problem})"
        ) from problem
    return write_text(path, text, overwrite=overwrite)


def read_json(path: Path) -> Json:
    """The content of a strict JSON file.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: it is truncated, not UTF-8, not strict JSON, or too large.
    """
    if not path.exists():
        raise ConfigError(f"there is no file {path}")
    with reading(path, "valid JSON in UTF-8", "it may be truncated: write it again"):
        return parse_json(read_bytes(path, JSON_BYTES))


def read_saved(path: Path) -> dict[str, Any]:
    """The JSON object in a file of ours, empty where there is no file yet; raises as `read_record` does."""
    return read_record(path).fields if path.exists() else {}


def read_record(path: Path) -> Record:
    """The JSON object in a file; raises as `read_json` does and IntegrityError when it is no object."""
    return Record(path, "", read_json(path))


class Record:
    """One JSON object of a file; every getter raises IntegrityError naming the file and the field."""

    def __init__(self, path: Path, place: str, value: Json) -> None:
        """`place` is where in the file the object stands, such as "episodes[3]"; "" for the whole."""
        self.path = path
        self.place = place
        if not isinstance(value, dict):
            raise IntegrityError(f"{path}: {place or 'the file'} must be an object; got {_describe(value)}")
        self.fields: dict[str, Json] = value

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raises IntegrityError: field `name` is not what was expected."""
        came = _describe(self.fields[name]) if name in self.fields else "nothing"
        raise IntegrityError(f"{self.path}: field {self._full(name)} must be {expected}; got {came}")

    def text(self, name: str) -> str:
        """A string field."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else self.refuse(name, "text")

    def boolean(self, name: str) -> bool:
        """A true or false field."""
        value = self.fields.get(name)
        return value if isinstance(value, bool) else self.refuse(name, "true or false")

    def integer(self, name: str, minimum: int | None = None) -> int:
        """An integer field, at least `minimum` if given."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or (minimum is not None and value < minimum):
            self.refuse(name, "an integer" + ("" if minimum is None else f" of at least {minimum}"))
        return value

    def number(self, name: str, minimum: float | None = None) -> float:
        """A finite number field, at least `minimum` if given."""
        value = self.fields.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or (minimum is not None and value < minimum)
        ):
            self.refuse(name, "a number" + ("" if minimum is None else f" of at least {minimum:g}"))
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            self.refuse(name, "a list of numbers")
        found = [float(x) for x in value if isinstance(x, int | float) and not isinstance(x, bool)]
        if len(found) != len(value) or not all(math.isfinite(x) for x in found):
            self.refuse(name, "a list of finite numbers")
        return tuple(found)

    def record(self, name: str) -> Record:
        """An object field."""
        return Record(self.path, self._full(name), self.fields.get(name))

    def records(self, name: str) -> Iterator[Record]:
        """The objects of a list field, in order."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            self.refuse(name, "a list")
        for index, entry in enumerate(value):
            yield Record(self.path, f"{self._full(name)}[{index}]", entry)

    def texts(self, name: str) -> dict[str, str]:
        """An object field whose values are all strings."""
        inner = self.record(name)
        return {key: inner.text(key) for key in inner.fields}

    def _full(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name


def _describe(value: Json) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None:
        return "null"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
