"""The gym suite: names, protocols and constructors; listing the catalogue imports no Gymnasium."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.faults import environment_faults
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, OptionRule, Score, Task

from .entry import GymEntry, Simulator

if TYPE_CHECKING:
    from .environment import GymnasiumEnvironment

DEFAULT_HORIZON = 1000
"""Environment steps per episode of an id that was registered without `max_episode_steps`."""

SCORING = {
    # own: the id's range of returns where it is known; success: what `info` says
    "score": OptionRule("own", choices=("own", "return", "success")),
    # returns that count as 0 and as 1; both 0: the id's own
    "score_low": OptionRule(0.0),
    "score_high": OptionRule(0.0),
}
"""How a task is scored. What is left at its default is no part of the task."""

OPTIONS = {
    # environment steps that one action is held for
    "action_repeat": OptionRule(1, low=1, high=16),
    # environment steps per episode; 0: the id's own `max_episode_steps`, or 1000 where it has none
    "horizon": OptionRule(0, low=0, high=1_000_000),
    **SCORING,
}


@dataclass(frozen=True)
class AddedEnvironment:
    """An environment that this process was given by `add_environment`."""

    make: Callable[[], Simulator]
    entry: GymEntry
    score: Score
    reward_version: str


class GymSuite(CatalogueSuite[GymEntry]):
    """Gymnasium (Towers et al. 2024): any registered id as "gym/<id>" or "gym/<module>:<id>".

    The catalogue lists built-in ids. Another id, and what `add_environment` adds, is built once to read its
    spaces. Observations are a Box of numbers (`state`), a Box of uint8 images
    (`pixels`) or Discrete (`state`, one-hot); actions are Discrete or a bounded Box.
    """

    name = "gym"
    catalogue = Catalogue.read(Path(__file__).with_name("catalogue.json"), GymEntry)
    options = OPTIONS
    environment_megabytes = 1.5

    def __init__(self) -> None:
        self.added: dict[str, AddedEnvironment] = {}
        self._built: dict[str, GymEntry] = {}
        self._proved: set[Task] = set()

    def names(self) -> tuple[str, ...]:
        """The catalogue's ids, then those of `add_environment`; other registered ids work too."""
        return (*super().names(), *self.added)

    def entry(self, name: str) -> GymEntry:
        """The entry of the catalogue, of `add_environment`, or of an environment that is built once."""
        if name in self.added:
            return self.added[name].entry
        identifier = name.removeprefix("gym/")
        if identifier in self.catalogue.entries or not identifier:
            return super().entry(name)
        if name not in self._built:
            from .construction import describe

            self._built[name] = describe(name, self.names())
        return self._built[name]

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; options: `action_repeat` (1 to 16), `horizon` in environment steps (0: the id's own), and
        `score`, `score_low`, `score_high`.

        Raises:
            ConfigError: for a range of returns that is empty, or given to a score by success.
            UnknownNameError: for an id that is not registered.
            UnsupportedError: for spaces that mtrl does not map, or a package that is not installed.
        """
        task = task_of(name, *self.described(name, options))
        if (added := self.added.get(name)) is None:
            return task
        own = SCORING.keys().isdisjoint(dict(task.options))
        return replace(task, score=added.score if own else task.score, reward_version=added.reward_version)

    def environment(self, task: Task) -> GymnasiumEnvironment:
        """A new environment of the task; the first of a task is also tried for its starts.

        Raises:
            UnsupportedError: when equal seeds do not give equal episodes, or a package is missing.
            ConfigError: when the environment's spaces are not those of the task.
            EnvironmentFault: when the environment fails, or returns what it may not.
        """
        from .construction import build
        from .environment import GymnasiumEnvironment, require_starts

        added = self.added.get(task.name)
        with environment_faults(task.name, "construction"):
            simulator = added.make() if added is not None else build(task.name)
        limit = _episode_steps(self.entry(task.name), int(task.option("horizon", 0)))
        environment = GymnasiumEnvironment(task, simulator, limit)
        if task not in self._proved:
            try:
                require_starts(environment)
            except BaseException:
                environment.close()
                raise
            self._proved.add(task)
        return environment

    def add(self, name: str, added: AddedEnvironment) -> None:
        """Adds an environment under its full name, in place of an earlier one of that name."""
        if name.removeprefix("gym/") in self.catalogue.entries:
            raise ConfigError(f"{name} is an id of Gymnasium; choose another name for your environment")
        self.added[name] = added
        self._proved = {task for task in self._proved if task.name != name}


def task_of(name: str, entry: GymEntry, options: Mapping[str, Option]) -> Task:
    """The task of an entry; `options` holds every option of the suite."""
    repeat = int(options["action_repeat"])
    steps = _episode_steps(entry, int(options["horizon"]))
    return Task(
        name=name,
        observation=ObservationSpec(state=entry.state, pixels=entry.pixels),
        action=ActionSpec(continuous=entry.continuous, discrete=entry.discrete),
        simulator_rate_hz=entry.rate_hz,
        action_repeat=repeat,
        horizon_decisions=math.ceil(steps / repeat),
        score=_score(entry, options),
        reward_version="gymnasium-1",
        options=tuple(
            (key, value)
            for key, value in options.items()
            if key not in SCORING or value != SCORING[key].default
        ),
    )


def _score(entry: GymEntry, options: Mapping[str, Option]) -> Score:
    """What the options say, or else the entry."""
    kind, low, high = str(options["score"]), float(options["score_low"]), float(options["score_high"])
    ranged = (low, high) != (0.0, 0.0)
    if kind == "success":
        if ranged:
            raise ConfigError(
                "tasks.options.gym.score_low and score_high are a range of returns; with score=success leave "
                "them out"
            )
        return Score("success")
    if ranged:
        return Score("return", low=low, high=high)
    return entry.score if kind == "own" else Score("return")


def _episode_steps(entry: GymEntry, horizon: int) -> int:
    """Environment steps per episode: the option's, the id's own, or the default."""
    return horizon or entry.max_steps or DEFAULT_HORIZON


SUITE = GymSuite()


def add_environment(
    name: str,
    make: Callable[[], Simulator],
    *,
    horizon: int,
    score: Score | None = None,
    rate_hz: float | None = None,
    reward_version: str = "1",
) -> str:
    """Makes an environment a task of this process, and returns the task's full name "gym/<name>".

    `make` returns a new gymnasium.Env with Box or Discrete spaces; it is called once here. `horizon` is in
    environment steps. `score` is the undiscounted return unless given: `Score("success")` for an
    environment with `info["is_success"]`, `Score("return", low, high)` to normalise. `rate_hz` are steps per
    simulated second; by default the environment's own. Change `reward_version` with the
    reward, so that results of different rewards are not compared. A name given again is replaced. Other
    processes do not see it: register an id with Gymnasium in a module, and name it "gym/<module>:<id>".

    Raises:
        ConfigError: for a name that Gymnasium's own ids have, or a `make` that makes something else.
        OutOfRangeError: for a horizon or a rate that is not positive.
        UnsupportedError: for spaces that mtrl does not map; the message says how to wrap them.
    """
    import gymnasium

    from .construction import bare, entry_of

    if not name or name.startswith("gym/") or any(letter.isspace() or letter == "@" for letter in name):
        raise ConfigError(f"an environment is named without 'gym/', spaces and '@'; got {name!r}")
    if horizon < 1:
        raise OutOfRangeError("horizon", horizon, "at least 1 environment step")
    if rate_hz is not None and not rate_hz > 0.0:
        raise OutOfRangeError("rate_hz", rate_hz, "above 0 Hz")
    full_name = f"gym/{name}"

    def checked() -> Simulator:
        made = make()
        if not isinstance(made, gymnasium.Env):
            raise ConfigError(f"{full_name}: make() returns a gymnasium.Env; got {type(made).__name__}")
        return bare(made)

    simulator = checked()
    try:
        entry = entry_of(full_name, simulator, horizon, None)
    finally:
        simulator.close()
    if rate_hz is not None:
        entry = replace(entry, rate_hz=rate_hz)
    SUITE.add(full_name, AddedEnvironment(checked, entry, score or Score("return"), reward_version))
    return full_name
