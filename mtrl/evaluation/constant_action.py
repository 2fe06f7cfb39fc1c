"""The best constant action of every task: a level that shows whether a policy answers what it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mtrl.rollout import Acting, EpisodeJob, JobResult, PolicySnapshot, Rollouts
from mtrl.spaces import ActionSpec
from mtrl.tasks import Split, TaskSet, start_id

from .protocol import EvaluationConfig

SEARCH_STARTS = 3
"""Validation starts on which the candidates of a task are compared."""

Constant = int | list[float]
"""An index, or a vector in [-1, 1]."""


def constant_actions(spec: ActionSpec) -> list[Constant]:
    """The candidates: every index, or zero and each single actuator at either end of its range."""
    if spec.is_discrete:
        return list(range(spec.discrete))
    ends = np.eye(spec.continuous)
    rows: list[list[float]] = np.concatenate([0.0 * ends[:1], ends, -ends]).tolist()
    return [*rows]


def best_constant(
    rollouts: Rollouts,
    tasks: TaskSet,
    config: EvaluationConfig,
    on_result: Callable[[JobResult], None] | None = None,
) -> PolicySnapshot:
    """The policy "constant" with the action of each task that has the largest mean score on validation
    starts, and among equals the largest mean return; the first of equal ones.

    The starts of an evaluation have no part in the choice. An action all of whose episodes broke is left out.
    """
    candidates = [constant_actions(spec) for spec in tasks.layout.actions]
    found: dict[str, tuple[float, float]] = {}
    best = {task.name: own[0] for task, own in zip(tasks, candidates, strict=True)}
    for turn in range(max(map(len, candidates))):
        playing = {k: own[turn] for k, own in enumerate(candidates) if turn < len(own)}
        snapshot = constant_policy({**best, **{tasks[k].name: action for k, action in playing.items()}})
        jobs = [_job(k, config) for k in playing]
        for result in rollouts.run(jobs, snapshot, on_result=on_result):
            task, episodes = tasks[result.job.task_index], result.summaries
            if not episodes:
                continue
            scores = [task.score.normalise(e.episode_return, e.success_any) for e in episodes]
            mean = (float(np.mean(scores)), float(np.mean([e.episode_return for e in episodes])))
            if task.name not in found or mean > found[task.name]:
                found[task.name], best[task.name] = mean, playing[result.job.task_index]
    return constant_policy(best)


def constant_policy(actions: Mapping[str, Constant]) -> PolicySnapshot:
    """One action for each task by its name."""
    return PolicySnapshot("constant", {"actions": dict(actions)})


def _job(k: int, config: EvaluationConfig) -> EpisodeJob:
    return EpisodeJob(
        task_index=k,
        starts=tuple(start_id(Split.VALIDATION, index) for index in range(SEARCH_STARTS)),
        seed=config.seed,
        acting=Acting(),
        copies=config.copies,
        keep_going=True,
    )
