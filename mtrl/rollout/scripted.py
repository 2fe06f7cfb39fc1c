"""Policies that need no training, scripted experts, random play and constant actions; and any policy from its
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.spaces import Observation
from mtrl.structured import UNIT, Checked, at_least
from mtrl.tasks import Expert, Suite, Task, TaskSet

from .policy import LOG_PROBABILITY, Acting, Action, Extra, Policy, PolicySnapshot, PolicyState


@dataclass(frozen=True)
class NoiseConfig(Checked, place="noise"):
    """Noise added to the expert's executed action; the recorded label stays clean.

    Perturbing what is executed and labelling with the expert's own correction puts recovery into the
    data (DART, Laskey et al. 2017).
    """

    fraction: Annotated[float, UNIT] = 2 / 3
    """Share of episodes that are perturbed, 0 to 1."""
    low: Annotated[float, at_least(0)] = 0.1
    """Smallest standard deviation, in units of the action range's half-width; at least 0."""
    high: Annotated[float, at_least(0)] = 0.5
    """Largest standard deviation; each perturbed episode draws its own, uniform in [low, high]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.low <= self.high:
            raise OutOfRangeError("noise.low", self.low, f"0 to noise.high={self.high}")


class ExpertPolicy:
    """The suites' scripted experts behind the policy contract, one instance per copy."""

    def __init__(
        self, tasks: TaskSet, suites: dict[str, Suite], noise: NoiseConfig, version: int = 0
    ) -> None:
        """`suites` maps suite names to suites; `act` raises UnsupportedError for a task without expert."""
        self.version = version
        self.extras: tuple[Extra, ...] = (Extra("label", (tasks.layout.continuous_size,)),)
        self._tasks, self._suites, self._noise = tasks, suites, noise
        self._experts: dict[tuple[int, int], Expert] = {}

    def initial_state(self, count: int) -> PolicyState:
        """The standard deviation of each copy's noise; experts keep their other state in their objects."""
        return {"deviation": np.zeros(count)}

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
        """The expert's action as label; executed with the episode's noise when exploring."""
        count, layout = len(task_index), self._tasks.layout
        label = np.zeros((count, layout.continuous_size), dtype=np.float32)
        executed = np.zeros_like(label)
        deviation = state["deviation"].copy()
        for copy in range(count):
            k = int(task_index[copy])
            spec, generator = layout.observations[k], generators[copy]
            expert = self._expert(k, copy)
            if ended[copy]:
                expert.reset(generator)
                deviation[copy] = self._draw_deviation(generator) if acting.explore else 0.0
            native = {bucket: observation[bucket][copy] for bucket in spec.buckets}
            if spec.state is not None:
                native["state"] = native["state"][: spec.state]
            clean = np.clip(expert.act(native), -1.0, 1.0)
            label[copy, : len(clean)] = clean
            noise = deviation[copy] * generator.standard_normal(len(clean))
            executed[copy, : len(clean)] = np.clip(clean + noise, -1.0, 1.0)
        return Action(
            continuous=executed,
            discrete=np.zeros(count, dtype=np.int64),
            state={"deviation": deviation},
            extras={"label": label},
        )

    def _expert(self, k: int, copy: int) -> Expert:
        if (k, copy) not in self._experts:
            task = self._tasks[k]
            if task.action.is_discrete:
                raise UnsupportedError(f"task {task.name} is discrete; scripted experts are continuous")
            self._experts[k, copy] = self._suites[task.suite].expert(task.listed)
        return self._experts[k, copy]

    def _draw_deviation(self, generator: np.random.Generator) -> float:
        perturbed = generator.random() < self._noise.fraction
        return float(generator.uniform(self._noise.low, self._noise.high)) if perturbed else 0.0


class RandomPolicy:
    """Uniform over [-1, 1] in continuous dimensions and over legal indices."""

    def __init__(self, tasks: TaskSet, version: int = 0) -> None:
        """Plays every task of the set."""
        self.version = version
        self.extras: tuple[Extra, ...] = (LOG_PROBABILITY,)
        self._layout = tasks.layout

    def initial_state(self, count: int) -> PolicyState:
        """No state."""
        return {}

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
        """Draws from each copy's generator."""
        layout, count = self._layout, len(task_index)
        continuous = np.zeros((count, layout.continuous_size), dtype=np.float32)
        discrete = np.zeros(count, dtype=np.int64)
        log_probability = np.zeros(count, dtype=np.float32)
        for copy, k in enumerate(task_index):
            spec = layout.actions[k]
            if spec.is_discrete:
                discrete[copy] = generators[copy].integers(spec.discrete)
                log_probability[copy] = -np.log(spec.discrete)
            else:
                continuous[copy, : spec.continuous] = generators[copy].uniform(-1, 1, spec.continuous)
                log_probability[copy] = -spec.continuous * np.log(2.0)
        return Action(continuous, discrete, state, {"log_probability": log_probability})


class ConstantPolicy:
    """One action for each task, whatever the observation."""

    extras: tuple[Extra, ...] = ()

    def __init__(
        self, tasks: TaskSet, actions: Mapping[str, int | Sequence[float]], version: int = 0
    ) -> None:
        """`actions`: task name -> index, or vector in [-1, 1]."""
        self.version = version
        self._continuous = np.zeros((len(tasks), tasks.layout.continuous_size), dtype=np.float32)
        self._discrete = np.zeros(len(tasks), dtype=np.int64)
        for k, task in enumerate(tasks):
            if task.action.is_discrete:
                self._discrete[k] = actions[task.name]
            else:
                self._continuous[k, : task.action.continuous] = actions[task.name]

    def initial_state(self, count: int) -> PolicyState:
        """No state."""
        return {}

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
        """The action of every task."""
        return Action(self._continuous[task_index], self._discrete[task_index], state)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
    """The policy that a snapshot describes, for the tasks of this set.

    Raises ConfigError for settings that its agent does not have any more, or not yet.
    """
    if snapshot.kind == "expert":
        suites = {name: registry.suite(name) for name in {task.suite for task in tasks}}
        return ExpertPolicy(tasks, suites, NoiseConfig(**snapshot.config), snapshot.version)
    if snapshot.kind == "random":
        return RandomPolicy(tasks, snapshot.version)
    if snapshot.kind == "constant":
        return ConstantPolicy(tasks, snapshot.config["actions"], snapshot.version)
    if snapshot.kind in registry.names("policy"):
        rebuild = registry.load("policy", snapshot.kind)
    else:
        rebuild = registry.load("agent", snapshot.kind).policy
    try:
        policy: Policy = rebuild(snapshot, tasks)
    except UnknownNameError as error:
        raise ConfigError(
            f"this {snapshot.kind} policy was saved by another version of mtrl, with a setting that this one "
            f"lacks: {error}. Use the version that trained it, or train it again"
        ) from error
    return policy


def require_experts(tasks: Iterable[Task]) -> None:
    """Refuses tasks that no scripted expert plays; builds no environment and no expert.

    Raises UnsupportedError that lists every such task, those of suites without experts and those with
    discrete actions, and says what to do instead.
    """
    without = []
    for task in tasks:
        if not registry.suite(task.suite).has_experts:
            without.append(f"{task.name} (suite {task.suite!r} has no experts)")
        elif task.action.is_discrete:
            without.append(f"{task.name} (discrete; scripted experts are continuous)")
    if without:
        raise UnsupportedError(
            f"there is no scripted expert for {', '.join(without)}. Leave these tasks out; to "
            "train on them, bring demonstrations of your own as Minari datasets. "
            "mtrl tasks --json says which tasks have an expert"
        )
