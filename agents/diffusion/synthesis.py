"""Transitions drawn from a model of demonstrations (MTDiff-s, He et al. 2023, arXiv 2305.18459).

A transition is one row: state, action, reward, whether it ended and succeeded, change of the state. All
tasks share one denoiser of such rows, which knows the task alone: the diffusion agent itself, whose "action"
is the row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mtrl.data import Trajectories
from mtrl.reducer import ALONE
from mtrl.rollout import Execution
from mtrl.spaces import ActionSpec, ObservationSpec, RunningMoments
from mtrl.tasks import Task, TaskSet, require_continuous_states
from mtrl.training import Datasets

from .agent import DiffusionAgent
from .config import DiffusionConfig, PlanSettings, ReturnSettings

SCALE = 0.2
"""A standardised row is multiplied by this, so that five deviations are the ends of an action's range."""
NO_START = 0
"""What stands for the start of an episode that began from none: files hold numbers of at least 0."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowCode:
    """The rows of one task as vectors in [-1, 1]: [T, 2 D + A + 3]."""

    states: int
    actions: int
    mean: Rows
    scale: Rows

    @staticmethod
    def of(data: Trajectories) -> tuple[RowCode, Rows]:
        """The code of a task's transitions, and they in it."""
        raw, states = data.transitions(), data.observations["state"].shape[1]
        # how the state changes, which is small beside where it is
        raw[:, -states:] -= raw[:, :states]
        moments = RunningMoments(1, raw.shape[1])
        moments.update(0, raw)
        frozen = moments.freeze(np.ones((1, raw.shape[1]), dtype=np.bool_))
        code = RowCode(states, data.actions.shape[1], frozen.mean[0], frozen.scale[0])
        coded = np.clip(SCALE * (raw - code.mean) / code.scale, -1.0, 1.0)
        return code, coded.astype(np.float32)

    def decoded(self, rows: Rows) -> Trajectories:
        """Coded rows as episodes of one decision, cut after it unless the row says that it ended."""
        raw = self.mean + self.scale * rows / SCALE
        places = np.cumsum([self.states, self.actions, 1, 1, 1])
        before, action, reward, ended, success, change = np.split(raw, places, axis=1)
        terminated = ended[:, 0] > 0.5
        actions = np.clip(action, -1.0, 1.0).astype(np.float32)
        states = np.stack([before, before + change], axis=1).reshape(-1, self.states)
        return Trajectories(
            observations={"state": states.astype(np.float32)},
            actions=actions,
            labels=actions,
            rewards=reward[:, 0].astype(np.float32),
            terminated=terminated,
            truncated=~terminated,
            success=success[:, 0] > 0.5,
            offsets=np.arange(len(rows) + 1),
            start_id=np.full(len(rows), NO_START),
        )


def synthesised(
    config: DiffusionConfig,
    tasks: TaskSet,
    data: Mapping[int, Trajectories],
    count: int,
    updates: int,
    seed: int,
    on_update: Callable[[int], None],
) -> dict[int, Trajectories]:
    """Task -> `count` transitions like those of its demonstrations, failures included, from a model that is
    trained for this. `on_update(done)` is called after every update. Raises UnsupportedError for tasks with
    pixels or discrete actions.
    """
    require_continuous_states(tasks, "the synthesiser")
    coded = {k: RowCode.of(part) for k, part in data.items()}
    of_rows = TaskSet([_row_task(task, coded[k][1].shape[1]) for k, task in enumerate(tasks)])
    settings = replace(
        config,
        network=replace(config.network, chunk=1, history=1),
        noise=replace(config.noise, data_deviation=SCALE),
        plan=PlanSettings(),
        returns=ReturnSettings(),
        guidance=0.0,
        execution=Execution(steps=1),
        decay_updates=config.decay_updates or updates,
    )
    agent = DiffusionAgent(settings, of_rows, seed)
    agent.ingest(Datasets({k: _as_actions(rows) for k, (_, rows) in coded.items()}))
    with warnings.catch_warnings():
        # that the state which rows lack is constant
        warnings.simplefilter("ignore", RuntimeWarning)
        due = agent.due(updates, ALONE)
    for done in range(due):
        agent.update(ALONE)
        on_update(done + 1)
    sampler, draws = agent.policy().sampler, np.random.default_rng([seed, 5])
    found = {}
    for k, (code, rows) in coded.items():
        z = draws.standard_normal((count, sampler.spec.noise_size), dtype=np.float32)
        chunk = sampler.sample(np.zeros((count, 1, 1), np.float32), np.full(count, k), z)
        found[k] = code.decoded(chunk[:, 0, : rows.shape[1]])
    return found


def _row_task(task: Task, width: int) -> Task:
    """A task without a state, whose action is a row."""
    return replace(
        task, observation=ObservationSpec(state=1), action=ActionSpec(continuous=width), options=()
    )


def _as_actions(rows: Rows) -> Trajectories:
    """Every row as an episode of one decision."""
    count, all_of_them = len(rows), np.ones(len(rows), dtype=np.bool_)
    return Trajectories(
        observations={"state": np.zeros((2 * count, 1), dtype=np.float32)},
        actions=rows,
        labels=rows,
        rewards=np.zeros(count, dtype=np.float32),
        terminated=~all_of_them,
        truncated=all_of_them,
        success=all_of_them,
        offsets=np.arange(count + 1),
        start_id=np.full(count, NO_START),
    )
