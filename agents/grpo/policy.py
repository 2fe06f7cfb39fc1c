"""Acting: one forward pass, and noise from each copy's own generator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrl.data import Bucket
from mtrl.errors import ConfigError
from mtrl.nn import arrays_of, draw_index, tensors_of
from mtrl.rollout import LOG_PROBABILITY, Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .config import PolicyConfig
from .networks import ActionDistribution, StepBatch
from .student_actor import Actor, form_of, rebuilt_actor

FloatRows = npt.NDArray[np.float32]


def step_extras(layout: Layout) -> tuple[Extra, ...]:
    """The log-probability, and the continuous action as it was drawn, before it is clipped."""
    return (LOG_PROBABILITY, Extra("drawn", (layout.continuous_size,)))


class GroupPolicy:
    """Draws from the actor when exploring; otherwise its mean, or its most likely index.

    With correlated noise u_t = mean_t + rho (u_{t-1} - mean_{t-1}) + sqrt(1 - rho^2) std xi_t, so the
    deviation at every time is std, and the density of u_t given the past is exact.
    """

    def __init__(
        self,
        actor: Actor,
        version: int,
        *,
        correlation: float = 0.0,
        earlier: Sequence[Actor] = (),
        share: float = 0.0,
    ) -> None:
        """Shares the actors' weights. One of the `earlier` draws an action with probability `share`."""
        self.version, self.actor = version, actor
        self.extras = step_extras(actor.layout)
        self._layout, self._correlation = actor.layout, correlation
        self._actors, self._share = [actor, *earlier], share if earlier else 0.0
        self._cached_rows = lru_cache(1024)(self._rows)

    def initial_state(self, count: int) -> PolicyState:
        """The deviation of the last drawn action from its mean; nothing with white noise."""
        if not self._correlation:
            return {}
        return {"deviation": np.zeros((count, self._layout.continuous_size), dtype=np.float32)}

    @torch.inference_mode()
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
        """Actions of N copies, in one batch where they belong to one task."""
        count = len(task_index)
        batch = self._batch(observation, task_index)
        found = self._actors[0].distribution(batch)
        action = Action(
            continuous=np.zeros((count, self._layout.continuous_size), dtype=np.float32),
            discrete=np.zeros(count, dtype=np.int64),
            state={name: values.copy() for name, values in state.items()},
            extras={extra.name: extra.filled(count) for extra in self.extras} if acting.explore else {},
        )
        if not acting.explore:
            self._decide(action, found, np.arange(count), state, ended, generators, explore=False)
            return action
        chosen = self._choose(generators)
        for number in np.unique(chosen).tolist():
            if number:
                found = self._actors[number].distribution(batch)
            copies = np.flatnonzero(chosen == number)
            self._decide(action, found, copies, state, ended, generators, explore=True)
        return action

    def _choose(self, generators: Sequence[np.random.Generator]) -> npt.NDArray[np.int64]:
        """[N], which actor draws the action of each copy."""
        chosen = np.zeros(len(generators), dtype=np.int64)
        if self._share:
            for copy, generator in enumerate(generators):
                if generator.random() < self._share:
                    chosen[copy] = generator.integers(1, len(self._actors))
        return chosen

    def _decide(
        self,
        action: Action,
        found: ActionDistribution,
        copies: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        generators: Sequence[np.random.Generator],
        *,
        explore: bool,
    ) -> None:
        """Writes the decisions of `copies`."""
        # one row of all copies, or a row for every copy
        flat = found.count == 1
        kinds = (len(found.continuous) > 0, len(found.discrete) > 0)
        rows = {
            "continuous": np.arange(len(ended)) if flat and kinds[0] else found.continuous.numpy(),
            "discrete": np.arange(len(ended)) if flat and kinds[1] else found.discrete.numpy(),
        }
        if kinds[0]:
            held = np.isin(rows["continuous"], copies)
            here = rows["continuous"][held]
            mean = found.mean.flatten(0, 1).numpy()[held]
            if not explore:
                action.continuous[here] = np.clip(mean, -1.0, 1.0)
            elif len(here):
                log_std = found.log_std.expand_as(found.mean).flatten(0, 1).numpy()[held]
                mask = found.mask.expand_as(found.mean).flatten(0, 1).numpy()[held]
                drawn, density = self._draw(mean, log_std, mask, here, state, ended, generators)
                action.continuous[here] = np.clip(drawn, -1.0, 1.0)
                action.extras["drawn"][here], action.extras[LOG_PROBABILITY.name][here] = drawn, density
                if self._correlation:
                    action.state["deviation"][here] = drawn - mean
        if kinds[1]:
            log_policy = found.log_policy.flatten(0, 1).numpy()
            for row, copy in zip(log_policy, rows["discrete"], strict=True):
                if explore and copy in copies:
                    index = draw_index(np.exp(row.astype(np.float64)), generators[copy])
                    action.discrete[copy] = index
                    action.extras[LOG_PROBABILITY.name][copy] = row[index]
                elif not explore:
                    action.discrete[copy] = row.argmax()

    def _draw(
        self,
        mean: FloatRows,
        log_std: FloatRows,
        mask: FloatRows,
        copies: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        generators: Sequence[np.random.Generator],
    ) -> tuple[FloatRows, FloatRows]:
        """Actions [n, A_max] before clipping, and their log-probabilities [n] given the past."""
        noise = np.empty_like(mean)
        for row, copy in zip(noise, copies, strict=True):
            generators[copy].standard_normal(out=row, dtype=np.float32)
        shift = np.zeros_like(mean)
        if self._correlation:
            under_way = ~ended[copies][:, None]
            shift = np.where(under_way, self._correlation * state["deviation"][copies], 0.0)
            fresh = math.log(math.sqrt(1.0 - self._correlation**2))
            log_std = np.where(under_way, log_std + fresh, log_std)
        drawn = (mean + shift + np.exp(log_std) * noise) * mask
        density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        return drawn.astype(np.float32), (density * mask).sum(1).astype(np.float32)

    def _batch(self, observation: Observation, task_index: npt.NDArray[np.int64]) -> StepBatch:
        count = len(task_index)
        together = count == 1 or bool((task_index == task_index[0]).all())
        task, filled = self._cached_rows(tuple((task_index[:1] if together else task_index).tolist()))
        shape = (1, count) if together else (count, 1)
        buckets = {}
        for name, rows in observation.items():
            where = filled[name]
            if len(where):
                values = torch.from_numpy(np.asarray(rows)).reshape(*shape, *rows.shape[1:])
                buckets[name] = Bucket(values if len(where) == shape[0] else values[where], where)
        return StepBatch(task, torch.ones(shape), buckets, {})

    def _rows(self, tasks: tuple[int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Tasks [K], and bucket -> the rows whose tasks fill it."""
        members = {bucket: self._layout.members(bucket) for bucket in self._layout.buckets}
        filled = {
            bucket: torch.from_numpy(np.isin(tasks, held).nonzero()[0]) for bucket, held in members.items()
        }
        return torch.tensor(tasks), filled


def snapshot_of(
    kind: str,
    actor: Actor,
    version: int,
    *,
    correlation: float = 0.0,
    earlier: Sequence[Mapping[str, Tensor]] = (),
    share: float = 0.0,
) -> PolicySnapshot:
    """A policy as data; `kind` names the agent, the rest is as of `GroupPolicy`."""
    tensors = arrays_of(actor.state_dict())
    for number, state in enumerate(earlier):
        tensors |= {f"earlier/{number}/{name}": value for name, value in arrays_of(state).items()}
    config: dict[str, Any] = {
        "policy": asdict(actor.config),
        "student": form_of(actor),
        "correlation": correlation,
        "earlier": len(earlier),
        "share": share,
    }
    return PolicySnapshot(kind, config, tensors, version)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> GroupPolicy:
    """The policy of a snapshot."""
    config = snapshot.config
    tensors = tensors_of(snapshot.tensors)
    own = {name: value for name, value in tensors.items() if not name.startswith("earlier/")}
    earlier = [
        {name: tensors[f"earlier/{number}/{name}"] for name in own} for number in range(config["earlier"])
    ]
    form = config.get("student")
    actor, *others = (actor_of(config["policy"], form, state, tasks) for state in (own, *earlier))
    return GroupPolicy(
        actor, snapshot.version, correlation=config["correlation"], earlier=others, share=config["share"]
    )


def actor_of(
    settings: Mapping[str, Any], form: Mapping[str, Any] | None, state: Mapping[str, Tensor], tasks: TaskSet
) -> Actor:
    """An actor for acting only; raises ConfigError for tasks that it does not fit."""
    actor = rebuilt_actor(tasks.layout, build(PolicyConfig, settings), form)
    try:
        actor.load_state_dict(state, assign=True)
    except RuntimeError as error:
        (first, *rest) = str(error).strip().splitlines()
        raise ConfigError(
            "the policy does not fit these tasks. Play it on all the tasks that it was trained on, in their "
            f"order. ({(rest[0] if rest else first).strip()})"
        ) from error
    return actor.requires_grad_(False).eval()
