"""From nested plain values to frozen dataclasses, with errors a person can act on."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from mtrl.errors import ConfigError, MtrlError, OutOfRangeError, UnknownNameError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Range:
    """The interval of finite numbers that a number must lie in; its text completes "expected ..."."""

    low: float = -math.inf
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = True
    zero: str = ""
    """What 0 stands for, where it is the lowest value and a special one."""

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high else value < self.high
        return above and below and -math.inf < value < math.inf

    def __str__(self) -> str:
        low, high = (str(end) if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        if math.isinf(self.low):
            return f"{'at most' if self.includes_high else 'below'} {high}"
        if math.isinf(self.high):
            if self.zero:
                return f"{low} ({self.zero}) or more"
            return f"at least {low}" if self.includes_low else f"above {low}"
        if not self.includes_low:
            return f"above {low}, {'at most' if self.includes_high else 'below'} {high}"
        start = f"{low} ({self.zero})" if self.zero else low
        return f"{start} to {high}" if self.includes_high else f"{start} to below {high}"


def at_least(low: float, zero: str = "") -> Range:
    """Numbers from `low` on; `zero` is the meaning of 0, where it is special."""
    return Range(low, zero=zero)


def between(low: float, high: float, zero: str = "") -> Range:
    """Numbers from `low` to `high`, both included."""
    return Range(low, high, zero=zero)


POSITIVE = Range(0, includes_low=False)
UNIT = Range(0, 1)
"""[0, 1]"""
BELOW_ONE = Range(0, 1, includes_high=False)
"""[0, 1)"""
SHARE = Range(0, 1, includes_low=False)
"""(0, 1]"""
SEED = Range(0, 2**32 - 1)
"""What every library takes as a seed; numpy's global generator, which Stable-Baselines3 seeds, no more."""
INT64 = Range(-(2**63), 2**63 - 1)
"""Whole numbers of 64 bits."""


def check(settings: object, place: str, **rules: Range | tuple[str, ...]) -> None:
    """Requires fields of a dataclass to lie in their ranges, or to be one of the given words.

    `place` is the dotted key of `settings`, and may be empty. None passes, and so does a word where a range
    is the rule; of a tuple every entry is checked.
    Raises OutOfRangeError or ConfigError with the full key, what was expected and what came.
    """
    for field, rule in rules.items():
        key, value = _join(place, field), getattr(settings, field)
        for entry in value if isinstance(value, tuple) else (value,):
            if entry is None or (isinstance(entry, str) and isinstance(rule, Range)) or entry in rule:
                continue
            if isinstance(rule, Range):
                raise OutOfRangeError(key, value, f"each {rule}" if isinstance(value, tuple) else str(rule))
            *others, last = map(repr, rule)
            raise ConfigError(f"{key} is {', '.join(others)} or {last}; got {entry!r}")


class Checked:
    """Base of settings whose annotations hold the ranges or words of their fields, which `check` requires:
    `width: Annotated[int, between(1, 8192)] = 400`. Without an annotation too, numbers must be finite and
    whole numbers fit in 64 bits.
    """

    _place: typing.ClassVar[str] = ""

    def __init_subclass__(cls, place: str = "") -> None:
        """`place` as of `check`."""
        super().__init_subclass__()
        cls._place = place

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require_ordinary(value, _join(self._place, name))
        check(self, self._place, **_rules(type(self)))


def build(kind: type[Config], values: Mapping[str, Any], place: str = "") -> Config:
    """An instance of the dataclass `kind` from nested mappings, lists and scalars; a section may also be
    an instance already.

    `place` is the dotted key of `values` in the whole configuration. A key of the class variable `RENAMED`
    (old key -> field) is read as the field that it names; one of `REMOVED` (old key -> value) is passed over
    where it has that value, by which nothing changes. Raises UnknownNameError for a key that is no field
    and ConfigError for a missing key and a value of the wrong type or out of range, naming the full key;
    what `kind` itself raises is given the place.
    """
    hints, renamed, removed = _hints(kind), _renamed(kind), getattr(kind, "REMOVED", {})
    values = {key: value for key, value in values.items() if key not in removed or value != removed[key]}
    values = {renamed.get(key, key): values[key] for key in sorted(values, key=renamed.__contains__)}
    for key in values:
        if key not in hints:
            raise UnknownNameError("key", _join(place, key), [_join(place, name) for name in hints])
    arguments = {key: _convert(hints[key], value, _join(place, key)) for key, value in values.items()}
    if missing := [key for key in _required(kind) if key not in arguments]:
        raise ConfigError(f"missing {', '.join(_join(place, key) for key in missing)}: it has no default")
    if not issubclass(kind, Checked):
        _require_ordinary(arguments, place)
    try:
        return kind(**arguments)
    except MtrlError as error:
        error.args = (_placed(error, getattr(kind, "_place", ""), place),)
        raise


def _required(kind: type) -> list[str]:
    """The fields that have no default."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]


def defaults(kind: type) -> dict[str, Any]:
    """Every field of a dataclass that has a default, as nested plain values."""
    found = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = plain(field.default_factory())
    return found


def canonical(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a dataclass as this version writes them: renamed keys under their present names, and
    with defaults the sections of which `kind` selects another and what the class variable `ADDED` lists,
    without which earlier versions behaved the same. What else is absent stays absent. Raises as `build` does.
    """
    built, renamed, added = plain(build(kind, values)), _renamed(kind), getattr(kind, "ADDED", ())
    given = {renamed.get(key, key): value for key, value in values.items()}
    found = {}
    for name, hint in _hints(kind).items():
        section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        if section and isinstance(given.get(name), Mapping):
            found[name] = canonical(hint, given[name])
        elif name in given or name in added or (section and given.get("kind", name) != name):
            found[name] = built[name]
    return found


def renamed_keys(kind: type, place: str = "") -> dict[str, str]:
    """Every dotted key by which earlier versions called a setting of a dataclass -> its present key."""
    found = {_join(place, old): _join(place, name) for old, name in _renamed(kind).items()}
    for key, hint in _walk(kind, place):
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found.update({_join(key, old): _join(key, name) for old, name in _renamed(hint).items()})
    return found


def known_keys(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a dataclass, sections and renamed keys included."""
    return [key for key, _ in _walk(kind, place)]


def open_keys(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a dataclass that holds a mapping, whose own keys no field names."""
    origins = {key: typing.get_origin(hint) for key, hint in _walk(kind, place)}
    return [
        key for key, origin in origins.items() if isinstance(origin, type) and issubclass(origin, Mapping)
    ]


def text_keys(kind: type, place: str = "") -> list[str]:
    """Every dotted key of a dataclass whose value is text, renamed keys included."""
    found = [key for key, hint in _walk(kind, place) if hint is str]
    return [*found, *(old for old, key in renamed_keys(kind, place).items() if key in found)]


def plain(value: Any) -> Any:  # noqa: ANN401 - any configuration value
    """Nested dicts, lists and scalars of a dataclass, the inverse of `build`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf of nested objects, in their order; an empty object is a leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(came: object, expected: object, place: str) -> str:
    """Keys in which two dataclasses differ, with both values: "place.width=400, expected 256"."""
    theirs, ours = (dict(flat(plain(settings), f"{place}.")) for settings in (came, expected))
    return "; ".join(
        f"{key}={theirs.get(key, 'absent')}, expected {ours.get(key, 'absent')}"
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key, "absent") != ours.get(key, "absent")
    )


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _placed(error: MtrlError, own: str, place: str) -> str:
    """The message of a dataclass that calls itself `own`, with the key of the section that it fills."""
    text = str(error)
    begins = bool(own) and text.startswith(f"{own}.")
    if not place or text.startswith(f"{place}."):
        return text
    if begins or isinstance(error, OutOfRangeError):
        return f"{place}.{text.removeprefix(f'{own}.')}"
    return text if place in text else f"{place}: {text}"


def _rules(kind: type) -> dict[str, Any]:
    """Field -> the range or words of its annotation."""
    hints = typing.get_type_hints(kind, include_extras=True).items()
    return {name: rule for name, hint in hints for rule in getattr(hint, "__metadata__", ())}


def _require_ordinary(value: Any, key: str) -> None:  # noqa: ANN401
    """Refuses numbers that are not finite, and whole ones beyond 64 bits, in nested plain values."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _require_ordinary(item, _join(key, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_ordinary(item, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise OutOfRangeError(key, value, "a finite number")
    elif isinstance(value, int) and value not in INT64:
        raise OutOfRangeError(key, value, str(INT64))


def _walk(kind: type, place: str) -> Iterator[tuple[str, Any]]:
    for name in _renamed(kind):
        yield _join(place, name), None
    for name, hint in _hints(kind).items():
        yield _join(place, name), hint
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _walk(hint, _join(place, name))


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
    # what is beyond 64 bits has perhaps no float, and is refused as it is
    return float(value) if hint is float and value in INT64 else value


def _fits(hint: Any, value: Any) -> bool:  # noqa: ANN401
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
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
