"""Diffusion policies whose chunks are carried out in many ways: what benchmarks of that share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mtrl.launch.main import main as mtrl
from mtrl.pipeline import load_policy
from mtrl.registry import task_set
from mtrl.rollout import (
    Acting,
    Action,
    EpisodeJob,
    ExecutionChanges,
    Extra,
    JobResult,
    Policy,
    PolicySnapshot,
    PolicyState,
    RolloutWorker,
)
from mtrl.spaces import Observation
from mtrl.tasks import Split, TaskSet, start_id

HORIZON = 200
"""Decisions of a Meta-World episode."""


class Noisy:
    """Another policy, whose continuous actions reach the environment with noise; what it planned stays."""

    def __init__(self, policy: Policy, deviation: float) -> None:
        """`deviation` in units of the action range's half-width."""
        self.version, self.extras = policy.version, tuple[Extra, ...]()
        self._policy, self._deviation = policy, deviation

    def initial_state(self, count: int) -> PolicyState:
        """The other policy's."""
        return self._policy.initial_state(count)

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
        """Adds N(0, deviation^2) to what the other policy does."""
        action = self._policy.act(observation, task_index, state, ended, acting=acting, generators=generators)
        noise = np.stack([g.standard_normal(action.continuous.shape[1]) for g in generators])
        noisy = np.clip(action.continuous + self._deviation * noise, -1, 1).astype(np.float32)
        return replace(action, continuous=noisy)


class NoisyWorker(RolloutWorker):
    """A worker whose actions are noisy."""

    deviation = 0.0

    def _policy(self, snapshot: PolicySnapshot | Policy) -> Policy:
        policy = super()._policy(snapshot)
        return Noisy(policy, self.deviation) if self.deviation else policy


class Teacher:
    """A trained diffusion policy and the simulators that it is played in."""

    def __init__(self, run: Path, names: Sequence[str], words: Sequence[str]) -> None:
        """Trains it where `run` is not there, or goes on."""
        code = mtrl(
            [
                "train",
                f"tasks.names=[{','.join(names)}]",
                f"tasks.options.metaworld.horizon={HORIZON}",
                "stages=[collect,train]",
                f"output={run.parent}",
                f"name={run.name}",
                "tracking=files",
                "training.threads=1",
                *words,
                "--resume",
                "auto",
            ]
        )
        if code:
            raise SystemExit(code)
        torch.set_num_threads(1)
        self.tasks: TaskSet = task_set(list(names), {"metaworld": {"horizon": HORIZON}})
        self.snapshot = load_policy(run / "policies" / "teacher", self.tasks)[0]
        self._worker = NoisyWorker(self.tasks)

    def play(
        self,
        task: int,
        episodes: int,
        execution: Mapping[str, object],
        *,
        guidance: float = 0.0,
        noise: float = 0.0,
        split: Split = Split.TEST,
    ) -> JobResult:
        """Episodes of one task with all actions, from the first starts of a split; equal starts and seeds for
        every way of playing.
        """
        changed = ExecutionChanges(**execution).applied("teacher", self.snapshot)[1]  # type: ignore[arg-type]
        changed = replace(changed, config={**changed.config, "guidance": guidance})
        self._worker.deviation = noise
        starts = tuple(start_id(split, index) for index in range(episodes))
        job = EpisodeJob(task, starts, seed=0, acting=Acting(), copies=10, record=True)
        return self._worker.run(job, changed)


def successes(result: JobResult) -> npt.NDArray[np.float64]:
    """1 for every episode in which the success signal was on, [E]."""
    return np.array([summary.success_any for summary in result.summaries], dtype=np.float64)
