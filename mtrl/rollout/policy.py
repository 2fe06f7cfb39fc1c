"""The policy contract, its action, and the snapshot from which a policy is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation

PolicyState = dict[str, npt.NDArray[Any]]
"""State of a policy between decisions, each array with a leading copy axis [N, ...]: chunk
queues, plan warm starts, correlated noise, key-value caches. Empty for a memoryless policy."""


class Version(NamedTuple):
    """Version of a policy's weights; a later publication compares greater.

    A learner restored from a checkpoint counts its publications from an earlier number on, so each
    session has an incarnation of its own.
    """

    incarnation: int = 0
    """Sessions of the learner before this one."""
    number: int = 0
    """`Policy.version`."""


@dataclass(frozen=True)
class Acting:
    """Mode in which a policy acts."""

    explore: bool = False
    """Training noise on (experts: injected noise)."""
    plan: bool = True
    """Whether a policy that can plan does so; otherwise it acts by its prior."""


@dataclass(frozen=True)
class Extra:
    """A named array that a policy records with every decision, such as its log-probability."""

    name: str
    shape: tuple[int, ...] = ()
    """Of one decision's value."""
    dtype: str = "float32"
    replayed: bool = False
    """Whether replay stores and samples it."""

    def filled(self, *leading: int) -> npt.NDArray[Any]:
        """A new array [*leading, *shape] of what stands where nothing is recorded: NaN, or 0 where the type
        has none.
        """
        kind = np.dtype(self.dtype)
        return np.full((*leading, *self.shape), np.nan if kind.kind == "f" else 0, dtype=kind)


LOG_PROBABILITY = Extra("log_probability")
"""Log density of the drawn action under the policy that drew it, before the action is clipped."""


@dataclass
class Action:
    """The decision for N copies."""

    continuous: npt.NDArray[np.float32]
    """Shape [N, A_max] in [-1, 1]; zero where masked."""
    discrete: npt.NDArray[np.int64]
    """Shape [N]; an index, 0 for continuous tasks."""
    state: PolicyState
    """Argument of the next call."""
    extras: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Name -> [N, *shape], of those that the policy declares. One that is left out is recorded as
    `Extra.filled` says."""


class Policy(Protocol):
    """Acts on N copies, which may belong to different tasks.

    Results do not depend on which lane or actor hosts a copy: all randomness comes from the copy's
    own generator, seeded by (seed, task, copy) in training and by (seed, task, start) for whole
    episodes.
    """

    version: int
    """Counts publications of new weights; recorded with every fragment."""
    extras: tuple[Extra, ...]
    """Recorded with every decision in addition to observation, action and outcome."""

    def initial_state(self, count: int) -> PolicyState:
        """State of `count` copies at the beginning of an episode."""

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
        """Decides for N copies.

        `observation`: bucket -> [N, ...]. `task_index` [N]. `ended` [N]: True where the observation
        is the first of a new episode, so that the row of `state` must be forgotten. `generators`: one
        per copy.
        """


@dataclass(frozen=True, eq=False)
class PolicySnapshot:
    """A policy as data: named tensors and a version, never code. Any worker can rebuild it."""

    kind: str
    """Registry name of the agent whose factory rebuilds it, or "expert", "random" or "constant"."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able settings."""
    tensors: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    """Named weights, never written to again, because they are sent and compared later: a learner that trains
    in place gives copies."""
    version: int = 0
    incarnation: int = 0
    """Sessions of the learner before this one, as in `Version`."""

    @property
    def needs_torch(self) -> bool:
        """Whether a process that rebuilds it loads torch: agents do, scripted policies do not."""
        return self.kind not in ("expert", "random", "constant")

    def same_as(self, other: PolicySnapshot) -> bool:
        """Whether both describe one policy: equal kind, settings, version, incarnation and every weight.

        The version alone does not tell: two runs, or a teacher and its student, may share it.
        """
        if self is other:
            return True
        mine = (self.kind, self.version, self.incarnation, self.config)
        if mine != (other.kind, other.version, other.incarnation, other.config):
            return False
        return self.tensors.keys() == other.tensors.keys() and all(
            np.array_equal(values, other.tensors[name]) for name, values in self.tensors.items()
        )


def generator_for(seed: int, task_name: str, key: int, repeat: int = 0) -> np.random.Generator:
    """The generator of one copy or one episode: a function of (seed, task, key, repeat) alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, key, repeat, *task_name.encode()]))
