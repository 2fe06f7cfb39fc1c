"""What a suite needs to list its tasks without importing a simulator: a catalogue file, checked options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError

from .suite import Expert
from .task import Option, Task

Entry = TypeVar("Entry")
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""The types of options in words."""


@dataclass(frozen=True)
class OptionRule:
    """One setting that a suite accepts; the type of `default` is the type of the option."""

    default: Option
    """Value when the setting is not given."""
    low: float | None = None
    """Smallest allowed number, inclusive."""
    high: float | None = None
    """Largest allowed number, inclusive."""
    choices: tuple[Option, ...] = ()
    """Allowed values; empty: any within the range."""

    def check(self, key: str, value: Option) -> Option:
        """`value` in the option's own type; raises ConfigError or OutOfRangeError naming `key`."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{key} is {KINDS[kind]}; got {value!r} ({type(value).__name__})")
        if self.choices and value not in self.choices:
            raise OutOfRangeError(key, value, "one of " + ", ".join(map(str, self.choices)))
        if isinstance(value, int | float) and not isinstance(value, bool):
            too_low = self.low is not None and not value >= self.low
            too_high = self.high is not None and not value <= self.high
            if too_low or too_high:
                raise OutOfRangeError(key, value, f"{self.low} to {self.high}")
        return value


def resolve_options(
    suite: str, rules: Mapping[str, OptionRule], options: Mapping[str, Option] | None
) -> dict[str, Option]:
    """Every option of a suite with its value; all of them belong to the task's protocol.

    Messages name an option as a configuration does: `tasks.options.<suite>.<option>`.

    Raises:
        UnknownNameError: for a key that the suite does not have.
        OutOfRangeError: for a value outside the rule's range or choices.
        ConfigError: for a value of the wrong type.
    """
    given = dict(options or {})
    for key in given:
        if key not in rules:
            raise UnknownNameError(f"option of suite {suite!r}", key, rules)
    return {
        key: rule.check(f"tasks.options.{suite}.{key}", given.get(key, rule.default))
        for key, rule in rules.items()
    }


class Catalogue(Generic[Entry]):
    """A generated JSON file of tasks and sets, read at first use.

    The file holds `suite`, `package` (name and version it was generated with), `tasks` (short name ->
    fields of the entry type) and `sets` (set name -> short names). Names given out and taken are
    "suite/task".
    """

    def __init__(self, path: Path, entry_type: Callable[..., Entry]) -> None:
        """`entry_type` is built with the fields of a task as keywords."""
        self.path = path
        self.entry_type = entry_type

    @cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return content

    @cached_property
    def suite(self) -> str:
        """Prefix of the task names."""
        return str(self._content["suite"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All task names in the catalogue's order."""
        return tuple(f"{self.suite}/{short}" for short in self._content["tasks"])

    @cached_property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """Set name -> task names."""
        return {
            name: tuple(f"{self.suite}/{short}" for short in shorts)
            for name, shorts in self._content["sets"].items()
        }

    def short_name(self, name: str) -> str:
        """Task name without the suite; raises UnknownNameError with the nearest names."""
        if name not in self.names:
            overview = f"`mtrl tasks {self.suite}` lists the {len(self.names)} tasks of the suite"
            raise UnknownNameError("task", name, self.names, overview=overview)
        return name.split("/", 1)[1]

    def entry(self, name: str) -> Entry:
        """What the catalogue knows about a task; raises UnknownNameError with the nearest names."""
        return self.entry_type(**self._content["tasks"][self.short_name(name)])


class CatalogueSuite(Generic[Entry]):
    """What suites that list their tasks in a catalogue have in common.

    A suite adds `environment_megabytes`, `task` and `environment`, and `expert` where there are experts.
    """

    name: str
    supports_starts = True
    has_experts = False

    def __init__(
        self, path: Path, entry_type: Callable[..., Entry], options: Mapping[str, OptionRule]
    ) -> None:
        """`path` of the catalogue file; `options` are the settings that every task of the suite accepts."""
        self.catalogue = Catalogue(path, entry_type)
        self.options = options

    def names(self) -> tuple[str, ...]:
        """All task names "suite/task", in the catalogue's order."""
        return self.catalogue.names

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """The named task sets of the catalogue."""
        return self.catalogue.sets

    def described(self, name: str, options: Mapping[str, Option] | None) -> tuple[Entry, dict[str, Option]]:
        """What the catalogue knows about a task, and every option with its value.

        Raises UnknownNameError for the task's name, and what `resolve_options` raises.
        """
        return self.catalogue.entry(name), resolve_options(self.name, self.options, options)

    def expert(self, task: Task) -> Expert:
        """These tasks have no scripted experts: raises UnsupportedError."""
        raise UnsupportedError(
            f"{task.name} has no scripted expert. Train an agent on it, or collect from a task that has one"
        )


def catalogue_text(
    suite: str, package: str, tasks: Mapping[str, Any], sets: Mapping[str, tuple[str, ...]]
) -> str:
    """The text of a catalogue file; `tasks` maps short names to entry dataclasses. One task a line."""
    lines = [f"    {json.dumps(short)}: {json.dumps(asdict(entry))}" for short, entry in tasks.items()]
    groups = [f"    {json.dumps(name)}: {json.dumps(list(shorts))}" for name, shorts in sets.items()]
    return (
        "{\n"
        f'  "suite": {json.dumps(suite)},\n'
        f'  "package": {json.dumps(package)},\n'
        '  "tasks": {\n' + ",\n".join(lines) + "\n  },\n"
        '  "sets": {\n' + ",\n".join(groups) + "\n  }\n"
        "}\n"
    )
