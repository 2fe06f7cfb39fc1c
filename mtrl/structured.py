"""From nested plain values to frozen dataclasses, with errors a person can act on."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mtrl.errors import ConfigError, UnknownNameError

Config = TypeVar("Config")


def build(kind: type[Config], values: Mapping[str, Any], place: str = "") -> Config:
    """An instance of the dataclass `kind` from nested mappings, lists and scalars; a section may also be
    an instance already.

    `place` is the dotted key of `values` in the whole configuration. A key of the class variable `RENAMED`
    (old key -> field) is read as the field that it names. Raises UnknownNameError for a key that is no field
    and ConfigError for a value of the wrong type, both naming the full key.
    """
    hints, renamed = _hints(kind), _renamed(kind)
    values = {renamed.get(key, key): values[key] for key in sorted(values, key=renamed.__contains__)}
    for key in values:
        if key not in hints:
            raise UnknownNameError("key", _join(place, key), [_join(place, name) for name in hints])
    arguments = {key: _convert(hints[key], value, _join(place, key)) for key, value in values.items()}
    return kind(**arguments)


def known_keys(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a dataclass, sections and renamed keys included."""
    found = [_join(place, name) for name in _renamed(kind)]
    for name, hint in _hints(kind).items():
        found.append(_join(place, name))
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found += known_keys(hint, _join(place, name))
    return found


def open_keys(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a dataclass that holds a mapping, whose own keys no field names."""
    found: list[str] = []
    for name, hint in _hints(kind).items():
        origin = typing.get_origin(hint)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            found.append(_join(place, name))
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found += open_keys(hint, _join(place, name))
    return found


def plain(value: Any) -> Any:  # noqa: ANN401 - any configuration value
    """Nested dicts, lists and scalars of a dataclass, the inverse of `build`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _renamed(kind: type) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(kind, "RENAMED", {})
    return found


def _convert(hint: Any, value: Any, place: str) -> Any:  # noqa: ANN401
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        for option in options:
            if option is not type(None) and _fits(option, value):
                return _convert(option, value, place)
        raise _mismatch(hint, value, place)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _mismatch(hint, value, place)
        return build(hint, value, place)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise _mismatch(hint, value, place)
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{place}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _mismatch(hint, value, place)
        inner = typing.get_args(hint)[1]
        return {str(key): _convert(inner, item, _join(place, str(key))) for key, item in value.items()}
    if hint is typing.Any:
        return value
    if not _fits(hint, value):
        raise _mismatch(hint, value, place)
    return float(value) if hint is float else value


def _fits(hint: Any, value: Any) -> bool:  # noqa: ANN401
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _mismatch(hint: Any, value: Any, place: str) -> ConfigError:  # noqa: ANN401
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    expected = names.get(hint)
    if expected is None and dataclasses.is_dataclass(hint):
        keys = [field.name for field in dataclasses.fields(hint)]
        expected = (
            f"a section with keys {', '.join(keys)}; set them singly, as in {_join(place, keys[0])}=VALUE"
        )
    if expected is None:
        expected = "a list" if typing.get_origin(hint) is tuple else str(hint)
    return ConfigError(f"{place}={value!r} has the wrong type; expected {expected}")


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
