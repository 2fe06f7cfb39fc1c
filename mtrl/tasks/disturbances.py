"""Disturbances as options of any task: late actions, noisy and lost observations, other dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, UnsupportedError

from .catalogue import DISTURBANCES
from .starts import start_seed
from .suite import Buffers, Environment, SelfTruncating, TaskAction
from .task import Option, Task


@runtime_checkable
class VariableDynamics(Protocol):
    """An environment whose simulated dynamics may be varied."""

    def vary_dynamics(self, generator: np.random.Generator, spread: float) -> None:
        """Draws the dynamics of the episodes that begin after it, around the model's own, whatever was drawn
        before. Raises UnsupportedError where the simulation has none to vary.
        """


def split_disturbances(
    suite: str, options: Mapping[str, Option] | None
) -> tuple[dict[str, Option], dict[str, Option]]:
    """Options of the suite itself, and the disturbances that differ from none.

    Raises OutOfRangeError and ConfigError as `OptionRule.check`.
    """
    given = dict(options or {})
    found = {
        key: rule.check(f"tasks.options.{suite}.{key}", given.pop(key))
        for key, rule in DISTURBANCES.items()
        if key in given
    }
    return given, {key: value for key, value in found.items() if value != DISTURBANCES[key].default}


def disturbed(task: Task, disturbances: Mapping[str, Option]) -> Task:
    """The task with disturbances, which belong to its protocol.

    Raises ConfigError for noise on a task that shows no state.
    """
    if disturbances.get("observation_noise") and task.observation.state is None:
        raise ConfigError(
            f"observation_noise is added to the state, and {task.name} shows pixels alone; leave it out, or "
            "choose an observation with a state"
        )
    return replace(task, options=(*task.options, *disturbances.items())) if disturbances else task


def disturbances_of(task: Task) -> dict[str, Option]:
    """The disturbances of a task; empty for an undisturbed one."""
    return {key: value for key, value in task.options if key in DISTURBANCES}


def undisturbed(task: Task) -> Task:
    """The task without its disturbances: what a suite is given, and what a robot itself adds to."""
    return replace(task, options=tuple(item for item in task.options if item[0] not in DISTURBANCES))


def with_disturbances(task: Task, environment: Environment) -> Environment:
    """The environment behind the disturbances of the task; itself where there are none.

    Raises UnsupportedError where the dynamics are to vary and cannot; `environment` is closed then.
    """
    if not disturbances_of(task):
        return environment
    try:
        kind = _Truncating if isinstance(environment, SelfTruncating) else DisturbedEnvironment
        return kind(task, environment)
    except BaseException:
        environment.close()
        raise


class DisturbedEnvironment:
    """An environment seen and moved through imperfect wires.

    Everything is drawn from the task and the start, apart from what the environment draws: one start means
    the same disturbances for two policies. Rewards, success and ends are the true ones.
    """

    def __init__(self, task: Task, environment: Environment) -> None:
        """Of one environment, which `close` closes."""
        options = disturbances_of(task)
        self._inner, self._name = environment, task.name
        self._delay = int(options.get("action_delay", 0))
        self._delay_spread = int(options.get("action_delay_spread", 0))
        self._noise = float(options.get("observation_noise", 0.0))
        self._dropout = float(options.get("observation_dropout", 0.0))
        self._dynamics_spread = float(options.get("dynamics_spread", 0.0))
        self._neutral: TaskAction = (
            0 if task.action.is_discrete else np.zeros(task.action.continuous, dtype=np.float32)
        )
        self._waiting: list[TaskAction] = []
        self._seen: dict[str, npt.NDArray[np.generic]] = {}
        self._generator = np.random.default_rng(0)
        self._varied: VariableDynamics | None = None
        if self._dynamics_spread:
            if not isinstance(environment, VariableDynamics):
                raise UnsupportedError(
                    f"the dynamics of {task.name} cannot be varied: dynamics_spread is for tasks that MuJoCo "
                    "simulates, in Meta-World, DeepMind Control and Gymnasium. Leave it out for this task"
                )
            self._varied = environment
            environment.vary_dynamics(self._generator, 0.0)

    def reset(self, start: int, out: Buffers) -> None:
        """As the environment's; the first observation is never lost."""
        self._generator = np.random.default_rng(start_seed(self._name, start).spawn(1)[0])
        if self._varied is not None:
            self._varied.vary_dynamics(self._generator, self._dynamics_spread)
        delay = self._delay + int(self._generator.integers(self._delay_spread + 1))
        self._waiting = [self._neutral] * delay
        self._inner.reset(start, out)
        self._blur(out)
        self._seen = {bucket: values.copy() for bucket, values in out.items()}

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """As the environment's, with the action of `delay` decisions ago."""
        # the caller may write its next action into the same array
        self._waiting.append(action if isinstance(action, int) else np.array(action, dtype=np.float32))
        result = self._inner.step(self._waiting.pop(0), out)
        self._blur(out)
        if self._dropout and self._generator.random() < self._dropout:
            for bucket, values in out.items():
                values[...] = self._seen[bucket]
        elif self._dropout:
            for bucket, values in out.items():
                self._seen[bucket][...] = values
        return result

    def render(self) -> npt.NDArray[np.uint8]:
        """The true scene."""
        return self._inner.render()

    def close(self) -> None:
        """Closes the environment."""
        self._inner.close()

    def _blur(self, out: Buffers) -> None:
        if self._noise:
            state = out["state"]
            noise = self._generator.normal(0.0, self._noise, state.shape)
            np.add(state, noise, out=state, casting="same_kind")


class _Truncating(DisturbedEnvironment):
    """Of an environment with a step limit of its own."""

    @property
    def truncated(self) -> bool:
        """As the environment's."""
        assert isinstance(self._inner, SelfTruncating)
        return self._inner.truncated
