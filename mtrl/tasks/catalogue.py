"""The catalogue from which a suite lists its tasks without a simulator, and checks of its options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError

from .suite import Expert, VectorSuite
from .task import Option, Task

Entry = TypeVar("Entry")
Tables = tuple[Mapping[str, Entry], Mapping[str, Sequence[str]]]
"""Entries and sets by their short names."""
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


DISTURBANCES = {
    # decisions that an action takes to arrive; until the first one does, the middle action or index 0 acts
    "action_delay": OptionRule(0, low=0, high=64),
    # each episode draws its delay from action_delay to this many decisions more
    "action_delay_spread": OptionRule(0, low=0, high=64),
    # standard deviation of Gaussian noise on every number of the state, in the state's own units
    "observation_noise": OptionRule(0.0, low=0.0, high=1e6),
    # probability that an observation is lost, and the one before is seen again
    "observation_dropout": OptionRule(0.0, low=0.0, high=0.99),
    # each episode multiplies masses, friction, damping and gains by factors in [1 / (1 + s), 1 + s]
    "dynamics_spread": OptionRule(0.0, low=0.0, high=9.0),
}
"""What every suite accepts beside its own options. One that is left at its default is no part of the task."""


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
            raise UnknownNameError(f"option of suite {suite!r}", key, [*rules, *DISTURBANCES])
    return {
        key: rule.check(f"tasks.options.{suite}.{key}", given.get(key, rule.default))
        for key, rule in rules.items()
    }


class Catalogue(Generic[Entry]):
    """The tasks and the sets of a suite by their short names, without the suite's prefix."""

    def __init__(self, entries: Mapping[str, Entry], sets: Mapping[str, Sequence[str]] | None = None) -> None:
        """`entries`: short name -> what listing the task needs; `sets`: name of a set -> short names."""
        self.path: Path | None = None
        """The file that it is read from."""
        self._load: Callable[[], Tables[Entry]] = lambda: (entries, sets or {})

    @staticmethod
    def read(path: Path, entry_type: Callable[..., Entry]) -> Catalogue[Entry]:
        """Of a file that `catalogue_text` wrote, read at first use; `entry_type` takes a task's fields."""
        catalogue = Catalogue[Entry]({})

        def load() -> Tables[Entry]:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = {short: entry_type(**fields) for short, fields in content["tasks"].items()}
            return entries, content["sets"]

        catalogue.path, catalogue._load = path, load
        return catalogue

    @cached_property
    def _tables(self) -> Tables[Entry]:
        return self._load()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Short name -> what listing the task needs."""
        return self._tables[0]

    @property
    def sets(self) -> Mapping[str, Sequence[str]]:
        """Name of a set -> short names of its tasks."""
        return self._tables[1]


class CatalogueSuite(Generic[Entry]):
    """Base of suites whose tasks are listed in a catalogue.

    A suite defines `name`, `environment_megabytes`, `catalogue`, `task` and `environment`; `options` where
    its tasks have some; `has_experts` and `expert` where they have experts.
    """

    name: str
    catalogue: Catalogue[Entry]
    options: Mapping[str, OptionRule] = MappingProxyType({})
    """The settings that every task of the suite accepts."""
    supports_starts = True
    has_experts = False

    def names(self) -> tuple[str, ...]:
        """All task names "suite/task", in the catalogue's order."""
        return self._prefixed(self.catalogue.entries)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """The named task sets of the catalogue."""
        return {name: self._prefixed(shorts) for name, shorts in self.catalogue.sets.items()}

    def entry(self, name: str) -> Entry:
        """The catalogue's entry of a task; raises UnknownNameError with the nearest names."""
        suite, _, short = name.partition("/")
        if suite != self.name or short not in self.catalogue.entries:
            names = self.names()
            overview = f"`mtrl tasks {self.name}` lists the {len(names)} tasks of the suite"
            raise UnknownNameError("task", name, names, overview=overview)
        return self.catalogue.entries[short]

    def described(self, name: str, options: Mapping[str, Option] | None) -> tuple[Entry, dict[str, Option]]:
        """The catalogue's entry of a task, and every option with its value.

        Raises UnknownNameError for the task's name, and what `resolve_options` raises.
        """
        return self.entry(name), resolve_options(self.name, self.options, options)

    def expert(self, task: Task) -> Expert:
        """Raises UnsupportedError: these tasks have no scripted experts."""
        raise UnsupportedError(
            f"{task.name} has no scripted expert. Train an agent on it, or collect from a task that has one"
        )

    def _prefixed(self, shorts: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{self.name}/{short}" for short in shorts)


def require_vector_backend(suite: VectorSuite, task: Task, backend: str, hint: str) -> None:
    """Raises UnsupportedError unless the task, with its options, has the vector backend."""
    offered = suite.vector_backends(task)
    if backend not in offered:
        settings = "".join(f" {key}={value}" for key, value in task.options)
        raise UnsupportedError(
            f"task {task.name}{' with' if settings else ''}{settings} has no vector backend {backend!r}; "
            f"it has {', '.join(('python', *offered))}. {hint}"
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
