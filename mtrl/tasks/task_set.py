"""An ordered set of tasks that owns the layout they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mtrl.errors import ConfigError, SpaceError, UnknownNameError, UnsupportedError
from mtrl.spaces import Layout

from .task import Option, Task


@dataclass(frozen=True)
class NamedSet:
    """Tasks of one or several suites under one name, with the settings that belong to it."""

    names: tuple[str, ...]
    """Names of the tasks, in order."""
    options: Mapping[str, Mapping[str, Option]] = field(default_factory=dict)
    """Name of a suite, or of one of the tasks -> settings; a task's own come before those of its suite."""


class TaskSet:
    """Tasks in a fixed order; a task's index is stable and is data apart from the observation.

    The index is never glued into the observation by an environment: policies receive it as
    `task_index` and embed it as they please.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError for an empty set or a repeated task, SpaceError for mixed pixel shapes."""
        if not tasks:
            raise ConfigError("a task set needs at least one task")
        names = [task.name for task in tasks]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(
                f"a task may stand in a set once; repeated: {', '.join(repeated)}. To use one with several "
                f"options, name its variants, such as {repeated[0]} and {repeated[0]}@pixels"
            )
        first: dict[str, str] = {}
        for task in tasks:
            if first.setdefault(task.protocol_hash, task.name) != task.name:
                raise ConfigError(
                    f"{first[task.protocol_hash]} and {task.name} are the same task with the same options; "
                    f"give one of them its own, such as tasks.options.{task.name}.OPTION=VALUE"
                )
        _require_one_image_shape(tasks)
        self.tasks = tuple(tasks)
        self.layout = Layout(
            observations=tuple(task.observation for task in tasks),
            actions=tuple(task.action for task in tasks),
        )

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Task names in index order."""
        return tuple(task.name for task in self.tasks)

    def index(self, name: str) -> int:
        """Stable index of a task; raises UnknownNameError with the nearest names."""
        if name not in self.names:
            raise UnknownNameError("task", name, self.names)
        return self.names.index(name)

    @property
    def protocol_hash(self) -> str:
        """Hash over the ordered protocol hashes of all tasks."""
        joined = "\n".join(task.protocol_hash for task in self.tasks)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _require_one_image_shape(tasks: Sequence[Task]) -> None:
    """Raises SpaceError for images of several shapes; the layout has the shapes, but no names."""
    shapes: dict[tuple[int, int, int], list[str]] = {}
    for task in tasks:
        if task.observation.pixels is not None:
            shapes.setdefault(task.observation.pixels, []).append(task.name)
    if len(shapes) > 1:
        found = " and ".join(f"{'x'.join(map(str, shape))} ({_some(own)})" for shape, own in shapes.items())
        raise SpaceError(
            f"the images of one set have one shape; got {found}. Change the images of a suite by its "
            "options, such as tasks.options.dmc.frame_stack=4 with tasks.options.dmc.colour=grey, which give "
            "the 4x84x84 of atari; or use the suites in sets of their own"
        )


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def require_continuous_states(tasks: TaskSet, what: str, instead: str = "") -> None:
    """Raises UnsupportedError naming the task that `what` cannot serve; `instead` says what serves a discrete
    one.
    """
    for task in tasks:
        if task.action.is_discrete:
            raise UnsupportedError(
                f"{what} plans continuous actions; task {task.name} is discrete{instead and f'. {instead}'}"
            )
        if task.observation.state is None:
            raise UnsupportedError(
                f"{what} reads state vectors; task {task.name} observes {list(task.observation.buckets)}"
            )
