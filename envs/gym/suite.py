"""The gym suite: names, protocols and constructors; listing what the catalogue knows imports no Gymnasium."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError, EnvironmentFault, UnknownNameError, UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Expert, Option, Score, Task
from mtrl.tasks.catalogue import Catalogue, OptionRule, resolve_options

if TYPE_CHECKING:
    from .building import Simulator
    from .environment import GymnasiumEnvironment

DEFAULT_HORIZON = 1000
"""Environment steps per episode of an id that was registered without `max_episode_steps`."""

OPTIONS = {
    # environment steps that one action is held for
    "action_repeat": OptionRule(1, low=1, high=16),
    # environment steps per episode; 0: the id's own `max_episode_steps`, or 1000 where it has none
    "horizon": OptionRule(0, low=0, high=1_000_000),
}


@dataclass(frozen=True)
class GymEntry:
    """What describing a task of this suite needs."""

    state: int | None
    """Length of the state vector; None when the environment shows pictures."""
    pixels: tuple[int, int, int] | None
    """Channels, height, width of the picture; None when the environment shows numbers."""
    continuous: int
    """Action dimensions, or 0."""
    discrete: int
    """Action indices, or 0."""
    rate_hz: float
    """Environment steps per simulated second."""
    max_steps: int | None
    """`max_episode_steps` of the id, in environment steps."""
    reward_threshold: float | None
    """Return at which Gymnasium calls the id solved."""
    random_return: float | None = None
    """Mean return of random play, measured by `catalogue.py`."""

    def __post_init__(self) -> None:
        if self.pixels is not None:
            channels, height, width = self.pixels
            object.__setattr__(self, "pixels", (channels, height, width))

    @property
    def score(self) -> Score:
        """From random play to the id's reward threshold where both are known, else the return itself."""
        low, high = self.random_return, self.reward_threshold
        if low is None or high is None or not high > low:
            return Score("return")
        return Score("return", low=low, high=high)


@dataclass(frozen=True)
class AddedEnvironment:
    """An environment that this process was given by `add_environment`."""

    make: Callable[[], Simulator]
    entry: GymEntry
    score: Score
    reward_version: str


class GymSuite:
    """Gymnasium (Towers et al. 2024): any registered id as "gym/<id>" or "gym/<module>:<id>".

    The catalogue lists built-in ids. Another id is built once to learn its spaces, and so is one that
    `add_environment` brings. Observations are a Box of numbers (`state`), a Box of uint8 pictures
    (`pixels`) or Discrete (`state`, one-hot); actions are Discrete or a bounded Box.
    """

    name = "gym"
    supports_starts = True
    has_experts = False
    environment_megabytes = 1.5

    def __init__(self) -> None:
        self.catalogue = Catalogue(Path(__file__).with_name("catalogue.json"), GymEntry)
        self.added: dict[str, AddedEnvironment] = {}
        self._described: dict[str, GymEntry] = {}
        self._proved: set[Task] = set()

    def names(self) -> tuple[str, ...]:
        """The catalogue's ids, then what `add_environment` brought; other registered ids work too."""
        return (*self.catalogue.names, *self.added)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """`classic-control`, `toy-text` and `gymnasium-mujoco`."""
        return self.catalogue.sets

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; options: `action_repeat` (1 to 16) and `horizon` in environment steps (0: the id's own).

        Raises:
            UnknownNameError: for an id that is not registered.
            UnsupportedError: for spaces that mtrl does not map, or a package that is not installed.
        """
        added = self.added.get(name)
        if added is None:
            return self.described(name, self._entry(name), options)
        task = self.described(name, added.entry, options)
        return replace(task, score=added.score, reward_version=added.reward_version)

    def described(self, name: str, entry: GymEntry, options: Mapping[str, Option] | None = None) -> Task:
        """The task of that name, given what is known about it."""
        resolved = resolve_options(self.name, OPTIONS, options)
        repeat = int(resolved["action_repeat"])
        steps = _episode_steps(entry, int(resolved["horizon"]))
        return Task(
            name=name,
            observation=ObservationSpec(state=entry.state, pixels=entry.pixels),
            action=ActionSpec(continuous=entry.continuous, discrete=entry.discrete),
            simulator_rate_hz=entry.rate_hz,
            action_repeat=repeat,
            horizon_decisions=math.ceil(steps / repeat),
            score=entry.score,
            reward_version="gymnasium-1",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> GymnasiumEnvironment:
        """A new environment of the task; the first of a task is also tried for its starts.

        Raises:
            UnsupportedError: when equal seeds do not give equal episodes, or a package is missing.
            ConfigError: when the environment's spaces are not those of the task.
            EnvironmentFault: when the environment fails, or returns what it may not.
        """
        from .building import build
        from .environment import GymnasiumEnvironment
        from .probe import require_starts
        from .returned import leaving

        added = self.added.get(task.name)
        entry = added.entry if added is not None else self._entry(task.name)
        try:
            simulator = added.make() if added is not None else build(task.name)
        except SystemExit as error:
            raise EnvironmentFault(task.name, "construction", str(leaving(error))) from error
        limit = _episode_steps(entry, int(task.option("horizon", 0)))
        environment = GymnasiumEnvironment(task, simulator, limit)
        if task not in self._proved:
            try:
                require_starts(environment)
            except BaseException:
                environment.close()
                raise
            self._proved.add(task)
        return environment

    def expert(self, task: Task) -> Expert:
        """No id has a scripted expert: raises UnsupportedError."""
        raise UnsupportedError(
            f"{task.name} has no scripted expert. "
            "Train an agent on it, or collect from metaworld, maze2d or point tasks"
        )

    def add(self, name: str, added: AddedEnvironment) -> None:
        """Takes an environment under its full name, and forgets the one that had the name before."""
        if name in self.catalogue.names:
            raise ConfigError(f"{name} is an id of Gymnasium; choose another name for your environment")
        self.added[name] = added
        self._proved = {task for task in self._proved if task.name != name}

    def _entry(self, name: str) -> GymEntry:
        if name in self.catalogue.names:
            return self.catalogue.entry(name)
        if name not in self._described:
            if not name.removeprefix("gym/"):
                raise UnknownNameError("task", name, self.names())
            from .building import describe

            self._described[name] = describe(name, self.names())
        return self._described[name]


def _episode_steps(entry: GymEntry, horizon: int) -> int:
    """Environment steps per episode: the option's, the id's own, or the default."""
    return horizon or entry.max_steps or DEFAULT_HORIZON


SUITE = GymSuite()
