"""Suites, agents, policies, robots and parts of networks by name, from entry points, loaded when named.

A third party's plug-in is found as ours are: it declares an entry point in the group `mtrl.suites`,
`mtrl.task_sets`, `mtrl.agents`, `mtrl.policies`, `mtrl.distillers`, `mtrl.robots`, `mtrl.weightings` or
`mtrl.torsos`. In a bare clone, where no distribution is installed, the same declarations are read from
`pyproject.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, SelectableGroups, entry_points
from pathlib import Path
from typing import Any

from mtrl.errors import ConfigError, ExistsError, MtrlError, UnknownNameError, UntrustedCodeError
from mtrl.tasks import (
    Environment,
    MeasuredSuite,
    NamedSet,
    Option,
    Suite,
    Task,
    TaskSet,
    disturbed,
    split_disturbances,
    undisturbed,
    with_disturbances,
)

GROUPS = {
    "suite": "mtrl.suites",
    "task_set": "mtrl.task_sets",
    "agent": "mtrl.agents",
    "policy": "mtrl.policies",
    "distiller": "mtrl.distillers",
    "robot": "mtrl.robots",
    "weighting": "mtrl.weightings",
    "torso": "mtrl.torsos",
}

ATTRIBUTES = {
    "suite": ("name", "supports_starts", "has_experts", "environment_megabytes"),
    "agent": ("name", "config_class", "metrics"),
    "distiller": ("name", "config_class", "metrics"),
    "robot": ("name", "module", "config"),
    "weighting": ("config_class", "needs_gramian", "needs_rows", "state_names"),
    "torso": ("config_class", "natural_output", "appends_task"),
}
"""What a plug-in of a kind has to have in addition to its methods."""
METHODS = {
    "suite": ("names", "sets", "task", "environment", "expert"),
    "agent": ("needs", "extras", "build", "policy"),
    "distiller": ("needs", "extras", "build", "policy"),
    "weighting": ("weights", "combine", "state_dict", "load_state_dict"),
    "torso": ("transform", "forward"),
}
"""Methods that a plug-in of a kind has to have."""
CONTRACTS = {
    "suite": "mtrl.tasks.Suite",
    "agent": "mtrl.training.AgentFactory",
    "distiller": "mtrl.training.AgentFactory",
    "robot": "mtrl.deployment.Robot",
    "weighting": "mtrl.gradients.Weighting",
    "torso": "mtrl.nn.Torso",
}
"""Where the contract of a kind is written down."""
CLASSES = ("weighting", "torso")
"""Kinds whose plug-ins are classes, of which every use makes an object."""

_importable: set[str] = set()

_registered: dict[str, dict[str, object]] = {kind: {} for kind in GROUPS}


def register(kind: str, name: str, item: object, *, replace: bool = False) -> None:
    """Adds a plug-in of one of the kinds `GROUPS` for this process, for notebooks and tests.

    Workers started elsewhere do not see it: a plug-in that runs on Ray declares an entry point. What was
    registered before under the name is replaced; what a package declares, ours included, only with `replace`.

    Raises:
        UnknownNameError: for a kind that does not exist.
        ConfigError: for an item that is not what the kind needs; the message names what is missing.
        ExistsError: for a name that an installed package declares.
    """
    if kind not in GROUPS:
        raise UnknownNameError("kind of plug-in", kind, GROUPS)
    if not isinstance(name, str) or not name or "/" in name:
        raise ConfigError(f"a plug-in's name is a word without slashes; got {name!r} as {_words(kind)}")
    _require_contract(kind, name, item)
    if name in _declared(kind) and not replace:
        raise ExistsError(
            f"{_words(kind)} {name!r} is declared by an installed package; choose another name, "
            "or put yours in its place for this process with replace=True"
        )
    _registered[kind][name] = item


def unregister(kind: str, name: str) -> None:
    """Takes back what `register` added."""
    _registered[kind].pop(name, None)


def names(kind: str) -> tuple[str, ...]:
    """Every known name of a kind, one of `GROUPS`, sorted."""
    return tuple(sorted({*_declared(kind), *_registered[kind]}))


def load(kind: str, name: str) -> Any:  # noqa: ANN401 - the kind decides the type; callers annotate
    """Imports and returns one plug-in; raises UnknownNameError with the nearest names.

    A suite is a `mtrl.tasks.Suite`, a task set a `mtrl.tasks.NamedSet`, an agent a
    `mtrl.training.AgentFactory`. So is a distiller; its settings are a `mtrl.distillation.DistillationConfig`
    and its parent is "teacher". A policy is a function from (PolicySnapshot, TaskSet) to a Policy, a robot
    a `mtrl.deployment.Robot`, a weighting a subclass of `mtrl.gradients.Weighting`, a torso of
    `mtrl.nn.Torso`.
    """
    if name in _registered[kind]:
        return _registered[kind][name]
    declared = _declared(kind)
    if name not in declared:
        raise UnknownNameError(kind, name, names(kind))
    return EntryPoint(name, declared[name], GROUPS[kind]).load()


def suite(name: str) -> Suite:
    """The suite of that name."""
    found: Suite = load("suite", name)
    return found


def task(name: str, options: Mapping[str, Option] | None = None) -> Task:
    """One task by its full name "suite/task" or "suite/task@variant"; raises UnknownNameError, ConfigError
    for the name of a set.
    """
    prefix, slash, _ = name.partition("/")
    if not slash and name in named_sets():
        raise ConfigError(
            f"{name!r} is a set of {len(named_sets()[name].names)} tasks, where one task is expected; "
            f"take one of it: mtrl.make_tasks({name!r})[0]"
        )
    if not slash:
        raise UnknownNameError(
            "task", name, all_task_names(), "A task is named 'suite/task'.", overview=task_overview()
        )
    if prefix not in names("suite"):
        raise UnknownNameError("suite", prefix, names("suite"))
    problem, variant, _ = name.partition("@")
    own, disturbances = split_disturbances(prefix, options)
    found = disturbed(suite(prefix).task(problem, own), disturbances)
    return replace(found, name=name) if variant else found


def environment(task: Task) -> Environment:
    """A new copy of the task, ready to `reset`, behind the task's disturbances."""
    listed = task.listed
    return with_disturbances(listed, suite(task.suite).environment(undisturbed(listed)))


def task_megabytes(task: Task) -> float:
    """Resident memory of one environment of the task."""
    found = suite(task.suite)
    if isinstance(found, MeasuredSuite):
        return found.task_megabytes(task.listed)
    return found.environment_megabytes


def task_set(
    chosen: str | Sequence[str], options: Mapping[str, Mapping[str, Option]] | None = None
) -> TaskSet:
    """Tasks from a set's name ("mt10"), a task's name, or a list of both; order is kept.

    `options` maps the name of a suite to settings for all its tasks, and the name of a task, as it stands
    in the set, to settings of that task, which come before those of its suite. Both come before the
    settings of the same kind that a named set brings along.
    """
    if not isinstance(chosen, str | Sequence) or not all(isinstance(item, str) for item in chosen):
        raise ConfigError(
            f"tasks are the name of a set or of a task, or a list of such names; got {chosen!r}"
        )
    if options is not None and not _are_by_suite(options):
        raise ConfigError(
            'options of tasks are settings by suite or task, such as {"dmc": {"observation": "pixels"}}; '
            f"got {options!r}"
        )
    given = [chosen] if isinstance(chosen, str) else list(chosen)
    if not given:
        raise ConfigError("tasks is empty; give a set such as mt10 or a list such as [metaworld/reach-v3]")
    tasks: list[Task] = []
    for item in given:
        found = _named(item)
        sources = (found.options, options or {})
        for name in found.names:
            of_suite = _settings(sources, name.partition("/")[0])
            tasks.append(_with_own_options(name, of_suite, _settings(sources, name)))
    for place in options or {}:
        _require_place(place, [task.name for task in tasks], options or {})
    return TaskSet(tasks)


def expanded(chosen: Iterable[str]) -> tuple[str, ...]:
    """Names of tasks and of sets as names of tasks, without building any of them."""
    return tuple(name for item in chosen for name in _named(item).names)


def module_of(name: str) -> str:
    """The module that building the task "suite/<module>:<id>" imports; empty for other names."""
    module, colon, _ = name.partition("/")[2].partition(":")
    return module if colon else ""


def allow_imports(modules: Iterable[str]) -> None:
    """Lets tasks of files import these modules in this process; see `require_imports`."""
    _importable.update(modules)


def require_imports(names: Iterable[str], source: object) -> None:
    """Refuses tasks named by a file that import a module which the user has not named.

    Call it before tasks are built from a file; `source` is the file. What a user names is allowed by
    `allow_imports`. Raises UntrustedCodeError.
    """
    for name in expanded(names):
        module = module_of(name)
        if module and module not in _importable:
            raise UntrustedCodeError(source, name, module)


def named_sets() -> dict[str, NamedSet]:
    """Every named task set: those of single suites, then those that mix suites or bring settings."""
    sets = {key: NamedSet(members) for name in names("suite") for key, members in suite(name).sets().items()}
    return sets | {name: load("task_set", name) for name in names("task_set")}


def all_task_names() -> list[str]:
    """Every task of every suite; reads catalogues, imports no simulator."""
    return [task_name for name in names("suite") for task_name in suite(name).names()]


def _named(item: str) -> NamedSet:
    """The set of that name, or the one task."""
    if "/" in item:
        return NamedSet((item,))
    # Looked up only now: sets load every suite, and a task's name loads only its own.
    sets = named_sets()
    if item not in sets:
        raise UnknownNameError("task or task set", item, [*sets, *all_task_names()], overview=task_overview())
    return sets[item]


def _settings(sources: Iterable[Mapping[str, Mapping[str, Option]]], place: str) -> dict[str, Option]:
    """What the sources say about a suite or a task, a later one before an earlier one."""
    return {key: value for source in sources for key, value in source.get(place, {}).items()}


def _with_own_options(name: str, of_suite: Mapping[str, Option], own: Mapping[str, Option]) -> Task:
    """The task; a message about one of its own options names the key under which it stands."""
    if not own:
        return task(name, of_suite)
    try:
        return task(name, {**of_suite, **own})
    except MtrlError as error:
        text = str(error)
        for key in own:
            text = text.replace(
                f"tasks.options.{name.partition('/')[0]}.{key}", f"tasks.options.{name}.{key}"
            )
        error.args = (text,)
        raise


def _require_place(place: str, chosen: Sequence[str], places: Container[str]) -> None:
    """Refuses options of what is no suite and no task. Those of a task that was left out of the list do no
    harm, unless a variant of it was chosen that has none: then one of the two names is misspelt.
    """
    if place in names("suite") or place in chosen:
        return
    prefix, slash, _ = place.partition("/")
    if not slash or prefix not in names("suite"):
        hint = "Options of tasks stand under the name of their suite or of the task."
        raise UnknownNameError("suite", prefix, names("suite"), hint)
    problem = place.partition("@")[0]
    without = any(name.startswith(f"{problem}@") and name not in places for name in chosen)
    if without or problem not in suite(prefix).names():
        raise UnknownNameError("task under tasks.options", place, chosen)


def _are_by_suite(options: object) -> bool:
    return isinstance(options, Mapping) and all(isinstance(of_one, Mapping) for of_one in options.values())


def task_overview() -> str:
    """The sets and the suites in one phrase, for the message about a task that does not exist."""
    return (
        f"the sets are {', '.join(named_sets())}; the suites are {', '.join(names('suite'))}; "
        "`mtrl tasks` lists their tasks"
    )


def _require_contract(kind: str, name: str, item: object) -> None:
    """Raises ConfigError for an item that would fail when it is first used."""
    what, came = f"{_words(kind)} {name!r}", type(item).__name__
    if kind == "task_set":
        if not isinstance(item, NamedSet):
            raise ConfigError(f"{what} is a mtrl.tasks.NamedSet of task names; got {came}")
        return
    if kind == "policy":
        if not callable(item):
            raise ConfigError(
                f"{what} is a function from (PolicySnapshot, TaskSet) to a mtrl.rollout.Policy; got {came}"
            )
        return
    contract = CONTRACTS[kind]
    if kind in CLASSES and not isinstance(item, type):
        raise ConfigError(f"{what} is a class derived from {contract}; got an object of {came}")
    if kind not in CLASSES and isinstance(item, type):
        raise ConfigError(
            f"{what} is an object with the members of {contract}; got the class {item.__name__}: "
            f"register {item.__name__}(...) instead"
        )
    missing = [key for key in ATTRIBUTES[kind] if not hasattr(item, key)]
    methods = METHODS.get(kind, ())
    missing += [f"{key}()" for key in methods if not callable(getattr(item, key, None))]
    if missing:
        raise ConfigError(
            f"{what} is an object with the members of {contract}; "
            f"got {came}, which lacks {', '.join(missing)}"
        )
    own = getattr(item, "name", None)
    if "name" in ATTRIBUTES[kind] and own != name:
        raise ConfigError(f"{what} calls itself {own!r}; register it under that name")


def _words(kind: str) -> str:
    return kind.replace("_", " ")


@cache
def _declared(kind: str) -> dict[str, str]:
    group = GROUPS[kind]
    # a checkout's own declarations win over those of an older installation of it
    return {point.name: point.value for point in _installed(group)} | _from_checkout(group)


def _installed(group: str) -> Iterable[Any]:
    return _all_installed().select(group=group)


@cache
def _all_installed() -> SelectableGroups:
    """Read once: looking through every distribution takes as long as all else that a refusal needs."""
    return entry_points()


def _from_checkout(group: str) -> dict[str, str]:
    """The group's entry points in the pyproject.toml next to this package, if this is a checkout."""
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        project = tomllib.load(file).get("project", {})
    if project.get("name") != "mtrl-platform":
        return {}
    points: dict[str, str] = project.get("entry-points", {}).get(group, {})
    return points
