"""A policy on tasks that it was not trained on: each is played as one of its own tasks of equal sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.spaces import Layout, Observation
from mtrl.tasks import Option, Task, TaskSet

from .policy import Acting, Action, Extra, Policy, PolicySnapshot, PolicyState
from .scripted import policy_from

HELD_OUT = "held-out"
"""What results of such tasks are called."""


def held_out(
    snapshot: PolicySnapshot,
    trained: TaskSet,
    named: tuple[Sequence[str], Mapping[str, Mapping[str, Option]]],
    tasks: TaskSet,
    played_as: str = "",
) -> PolicySnapshot:
    """The policy of `trained`, whose names and options are `named`, for `tasks`, none of which it was trained
    on.

    A task is played as `played_as`, or as the one task of `trained` with the same sizes of state, image and
    action. Raises ConfigError for a task that was trained on, that none fits, or that several fit,
    UnknownNameError for a `played_as` that is not of `trained`.
    """
    if played_as and played_as not in trained.names:
        raise UnknownNameError("task that the policy was trained on", played_as, trained.names)
    rows = [trained.names.index(_own_task(task, trained, played_as)) for task in tasks]
    names, options = named
    config = {
        "policy": {"kind": snapshot.kind, "config": dict(snapshot.config)},
        "tasks": list(names),
        "options": {place: dict(values) for place, values in options.items()},
        "rows": rows,
    }
    return PolicySnapshot("held_out", config, snapshot.tensors, snapshot.version, snapshot.incarnation)


def _own_task(task: Task, trained: TaskSet, played_as: str) -> str:
    if task.name in trained.names:
        raise ConfigError(
            f"the policy was trained on {task.name}, so it is not held out; without tasks= the command "
            "evaluates it on its own tasks"
        )
    sizes = (task.observation, task.action)
    fitting = [own.name for own in trained if (own.observation, own.action) == sizes]
    if played_as:
        fitting = [name for name in fitting if name == played_as]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = ", ".join(fitting[:5]) + ", ..." * (len(fitting) > 5)
        raise ConfigError(
            f"{task.name} has the sizes of {shown}: choose as which of them it is played with --as TASK, "
            f"such as --as {fitting[0]}"
        )
    own = trained[trained.names.index(played_as) if played_as else 0]
    raise ConfigError(
        f"{task.name} does not fit the policy: it has {_sizes(task)}, and {own.name} has {_sizes(own)}. A "
        "policy plays tasks whose state and action have the sizes of one that it was trained on"
    )


def _sizes(task: Task) -> str:
    seen, acts = task.observation, task.action
    state = f"a state of {seen.state}" if seen.state else ""
    image = f"images of {'x'.join(map(str, seen.pixels))}" if seen.pixels else ""
    action = f"{acts.discrete} choices" if acts.is_discrete else f"an action of {acts.continuous}"
    return ", ".join(filter(None, (state, image, action)))


class HeldOutPolicy:
    """Acts for a task as for the one of its own whose row stands for it."""

    def __init__(self, inner: Policy, own: Layout, layout: Layout, rows: Sequence[int], version: int) -> None:
        self.version, self.extras = version, tuple[Extra, ...]()
        self._inner, self._own, self._layout = inner, own, layout
        self._rows = np.array(rows, dtype=np.int64)

    def initial_state(self, count: int) -> PolicyState:
        """That of the policy."""
        return self._inner.initial_state(count)

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Decides for N copies."""
        seen = self._own.zeros(len(task_index))
        for bucket, values in observation.items():
            if bucket in seen:
                width = min(values.shape[1], seen[bucket].shape[1])
                seen[bucket][:, :width] = values[:, :width]
        action = self._inner.act(
            seen, self._rows[task_index], state, ended, acting=acting, generators=generators
        )
        width = self._layout.continuous_size
        continuous = np.zeros((len(task_index), width), dtype=action.continuous.dtype)
        shared = min(width, action.continuous.shape[1])
        continuous[:, :shared] = action.continuous[:, :shared]
        return Action(continuous=continuous, discrete=action.discrete, state=action.state)


def held_out_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> HeldOutPolicy:
    """The entry point `held_out` of the group mtrl.policies."""
    config = snapshot.config
    own = registry.task_set(list(config["tasks"]), config["options"])
    inner = PolicySnapshot(
        config["policy"]["kind"],
        config["policy"]["config"],
        snapshot.tensors,
        snapshot.version,
        snapshot.incarnation,
    )
    return HeldOutPolicy(policy_from(inner, own), own.layout, tasks.layout, config["rows"], snapshot.version)
