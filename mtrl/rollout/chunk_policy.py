"""Acting with planned chunks: a queue of actions per copy, refilled by a sampler of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation

from .execution import Execution
from .policy import Acting, Action, Extra, PolicyState

Plan = Callable[..., npt.NDArray[np.float32]]
"""(rows [M], whether to bind plans to those before) -> chunks [M, H, A_max]."""


@dataclass(frozen=True)
class ChunkSpec:
    """Sizes of a map from states to action chunks."""

    history: int
    """States seen h, the newest last, at least 1."""
    state_size: int
    """Padded length of a state, D_max."""
    chunk: int
    """Actions planned at once H, at least 1."""
    actions: int
    """Padded length of an action, A_max, `choices` included."""
    noise_size: int = 0
    """Length of the noise z, Z; 0 for a function of states and task alone."""
    choices: int = 0
    """Columns of an action that score the choices of a discrete task, the last ones: the highest is taken."""
    planned: int = 0
    """Columns after those of an action: a state that the plan expects, D_max, or none."""
    stride: int = 0
    """Decisions between planned states; the i-th row of a chunk holds that of `stride` i decisions after."""


@runtime_checkable
class ChunkSampler(Protocol):
    """A deterministic map (state history, task, noise z) -> action chunk: a sampler of many steps, one
    network, an exported graph, a planner. A `ChunkPolicy` executes it, and a distiller may learn it.
    """

    @property
    def spec(self) -> ChunkSpec:
        """The sizes."""

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], standard normal z [N, Z] -> chunk [N, H, A_max] in [-1, 1], 0 in
        columns of other tasks; then the `planned` columns.
        """


@dataclass(frozen=True)
class FunctionSampler:
    """A function with its sizes, as a `ChunkSampler`."""

    spec: ChunkSpec
    sample: Callable[
        [npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]
    ]


@runtime_checkable
class BlendingSampler(Protocol):
    """A `ChunkSampler` that binds a plan to the one before while it makes it; optional. Plans of others are
    bound when they are made.
    """

    def blend(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
        pull: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """As `ChunkSampler.sample`; `ahead` [N, H, A_max + planned] is what is left of the plan before, and
        `pull` [H] how much each action is bound to it, 0 to 1.
        """


@runtime_checkable
class ResumingSampler(Protocol):
    """A `ChunkSampler` that can begin a plan around the one before; optional."""

    @property
    def resumes(self) -> bool:
        """Whether it does."""

    def resume(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """As `ChunkSampler.sample`; `ahead` [N, H, A_max + planned] is what is left of the plan before, its
        last row repeated.
        """


class ChunkPolicy:
    """Executes the first `steps` actions of each planned chunk, then plans again; or as `Execution` says.

    State per copy: the last h states, the queue, its read position, and the episode's noise; with a delay
    also the plan that is being made and the decisions until it is there.
    """

    def __init__(self, sampler: ChunkSampler, execution: Execution, version: int = 0) -> None:
        """Raises OutOfRangeError where more is executed than planned. What plans states too is recorded:
        "plan" [H, planned], the newest, and "plan_age", the decisions since it was made.
        """
        spec = sampler.spec
        execution.require_within(spec.chunk)
        self.extras: tuple[Extra, ...] = (
            (Extra("plan", (spec.chunk, spec.planned)), Extra("plan_age", dtype="int64"))
            if spec.planned
            else ()
        )
        self.version = version
        self.sampler = sampler
        """The map that plans."""
        self._execution = execution
        self._pull = execution.pull(sampler.spec.chunk)

    def initial_state(self, count: int) -> PolicyState:
        """Empty queues."""
        spec = self.sampler.spec
        queue = np.zeros((count, spec.chunk, spec.actions + spec.planned), dtype=np.float32)
        state: PolicyState = {
            "history": np.zeros((count, spec.history, spec.state_size), dtype=np.float32),
            "queue": queue,
            "position": np.full(count, spec.chunk, dtype=np.int64),
            "noise": np.zeros((count, spec.noise_size), dtype=np.float32),
        }
        if self._execution.delay:
            state |= {"coming": queue.copy(), "until": np.full(count, -1, dtype=np.int64)}
        return state

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
        """Plans for the copies that are due, takes one action of each."""
        now = observation["state"]
        # Copies, so that the caller's state stays what it was.
        state = {name: values.copy() for name, values in state.items()}
        history = np.concatenate([state["history"][:, 1:], now[:, None]], axis=1).astype(np.float32)
        history[ended] = now[ended][:, None]
        state["history"] = history
        state["position"][ended] = self.sampler.spec.chunk

        def plan(rows: npt.NDArray[np.int64], bound: bool = False) -> npt.NDArray[np.float32]:
            for copy in map(int, rows):
                if self._execution.noise == "chunk" or (self._execution.noise == "episode" and ended[copy]):
                    noise = state["noise"][copy]
                    noise[:] = generators[copy].standard_normal(len(noise), dtype=np.float32)
            seen = (history[rows], task_index[rows], state["noise"][rows])
            if bound:
                return self._bound(*seen, _left(state, rows))
            return self._planned(*seen, _left(state, rows, repeat=True), state["position"][rows])

        if self._execution.adaptive:
            self._adapt(state, plan)
        else:
            self._renew(state, ended, plan)
        queue, position, spec = state["queue"], state["position"], self.sampler.spec
        row, parts = queue[np.arange(len(now)), position], [spec.actions - spec.choices, spec.actions]
        continuous, scores, _ = np.split(row, parts, axis=1)
        # scores that are not finite are no choice, which the lane refuses
        best = scores.argmax(1) if scores.shape[1] else np.zeros(len(now), dtype=np.int64)
        return Action(
            continuous=np.clip(continuous, -1.0, 1.0).astype(np.float32),
            discrete=np.where(np.isfinite(scores).all(1), best, -1),
            state={**state, "position": position + 1},
            extras={"plan": queue[:, :, spec.actions :], "plan_age": position} if spec.planned else {},
        )

    def _renew(self, state: PolicyState, ended: npt.NDArray[np.bool_], plan: Plan) -> None:
        """Plans again after `steps` actions; a plan is there after the delay, begun where time is."""
        execution, queue, position = self._execution, state["queue"], state["position"]
        if not execution.delay:
            _replace(state, plan, np.flatnonzero(position >= execution.steps))
            return
        coming, until = state["coming"], state["until"]
        until[ended] = -1
        until[until > 0] -= 1
        there = until == 0
        queue[there], position[there], until[there] = coming[there], execution.delay, -1
        _replace(state, plan, np.flatnonzero(position >= self.sampler.spec.chunk))
        due = np.flatnonzero((position >= execution.steps) & (until < 0))
        if len(due):
            coming[due], until[due] = plan(due, execution.blend == "soft"), execution.delay

    def _adapt(self, state: PolicyState, plan: Plan) -> None:
        """Plans at every decision, and keeps the plan before where the new one begins alike."""
        queue, position = state["queue"], state["position"]
        begun = position < self.sampler.spec.chunk
        fresh = plan(np.arange(len(queue)))
        kept = np.concatenate([queue[:, 1:], fresh[:, -1:]], axis=1)
        actions = self.sampler.spec.actions
        kept[:, :, actions:] = fresh[:, :, actions:]
        old, new = kept[:, 0, :actions], fresh[:, 0, :actions]
        # cos(old, new) >= threshold, true of actions that are 0
        alike = (old * new).sum(1) >= self._execution.adaptive * np.sqrt((old**2).sum(1) * (new**2).sum(1))
        state["queue"] = np.where((begun & alike)[:, None, None], kept, fresh)
        state["position"] = np.zeros_like(position)

    def _planned(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
        position: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """A plan, begun around the one before where there is one left and the sampler does that."""
        sampler, begun = self.sampler, position < self.sampler.spec.chunk
        if not isinstance(sampler, ResumingSampler) or not sampler.resumes or not begun.any():
            return sampler.sample(states, task, z)
        found = np.empty_like(ahead)
        found[begun] = sampler.resume(states[begun], task[begun], z[begun], ahead[begun])
        if not begun.all():
            found[~begun] = sampler.sample(states[~begun], task[~begun], z[~begun])
        return found

    def _bound(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """A plan that goes on where the one before is when it is there."""
        if isinstance(self.sampler, BlendingSampler):
            return self.sampler.blend(states, task, z, ahead, self._pull)
        chunk = self.sampler.sample(states, task, z)
        return chunk + self._pull[None, :, None] * (ahead - chunk)


def _replace(state: PolicyState, plan: Plan, rows: npt.NDArray[np.int64]) -> None:
    """New plans for these copies, carried out from their first action on."""
    if len(rows):
        state["queue"][rows], state["position"][rows] = plan(rows), 0


def _left(state: PolicyState, rows: npt.NDArray[np.int64], repeat: bool = False) -> npt.NDArray[np.float32]:
    """What is left of these copies' plans [N, H, A_max + planned], then 0, or the last row again."""
    chunk = state["queue"].shape[1]
    place = state["position"][rows, None] + np.arange(chunk)
    left = state["queue"][rows[:, None], np.minimum(place, chunk - 1)]
    found: npt.NDArray[np.float32] = np.where((place < chunk)[:, :, None] | repeat, left, np.float32(0))
    return found
