"""Several runs of one method, seed by seed, and the comparison of two such groups.

The unit here is the run: intervals say what another set of seeds would give (Agarwal et al. 2021), while
those of `compare` say what other starts would give the same two policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from mtrl.errors import ConfigError

from .aggregates import (
    Scores,
    independent_bootstrap,
    interquartile_mean,
    mean_score,
    optimality_gap,
    probability_of_improvement,
    stratified_bootstrap,
)
from .comparison import require_comparable
from .results import EvaluationResult
from .statistics import Estimate

GROUP_SEED = 0
"""Seed of the resampling of runs, so that a table repeats itself."""

FEW_RUNS = 5
"""Below this many runs a bootstrap over runs is known to give intervals that are too narrow."""


@dataclass(frozen=True)
class RunGroup:
    """Results of one method's runs. Made by `run_group`."""

    name: str
    results: tuple[EvaluationResult, ...]
    """One per run, at least two, all comparable."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Tasks whose scores are normalised, in the order of the first run's set."""
        return tuple(task.name for task in self.results[0].normalised_tasks)

    def scores(self, names: Sequence[str] | None = None) -> Scores:
        """Mean normalised score of every run on every task, [R, K], tasks in the order of `names`."""
        chosen = self.task_names if names is None else tuple(names)
        return np.array([[_score(result, name) for name in chosen] for result in self.results])


@dataclass(frozen=True)
class GroupSummary:
    """A group in a few numbers, each with a bootstrap interval over whole runs."""

    name: str
    runs: int
    tasks: tuple[tuple[str, Estimate], ...]
    """Task -> mean over runs of the normalised score."""
    mean: Estimate
    interquartile_mean: Estimate
    optimality_gap: Estimate
    """How far runs fall short of a score of 1 on average."""


@dataclass(frozen=True)
class GroupComparison:
    """How much better one group's runs are than another's, each interval over the runs of both."""

    better: str
    reference: str
    runs: tuple[int, int]
    tasks: tuple[tuple[str, Estimate], ...]
    """Task -> difference of the mean normalised scores."""
    mean: Estimate
    interquartile_mean: Estimate
    improvement: Estimate
    """Probability that a run of the first group beats one of the reference, averaged over tasks; 0.5 means
    no difference."""


def run_group(name: str, results: Sequence[EvaluationResult]) -> RunGroup:
    """Groups the runs of one method.

    Raises:
        ConfigError: fewer than two runs, one policy twice, runs that `require_comparable` refuses, or
            no task with a normalised score.
    """
    if len(results) < 2:
        raise ConfigError(
            f"group {name!r} has {len(results)} run; intervals over runs need at least two: "
            "train it again with another seed, or compare without groups"
        )
    for other in results[1:]:
        require_comparable(results[0], other)
    identities = [result.policy.identity for result in results]
    twice = next((identity for identity in identities if identities.count(identity) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"group {name!r} holds the policy {twice[:12]} twice; train its runs with different seeds"
        )
    group = RunGroup(name, tuple(results))
    if not group.task_names:
        raise ConfigError(f"group {name!r} has no task with a normalised score; give its tasks a score range")
    return group


def summarise_group(group: RunGroup, confidence: float | None = None) -> GroupSummary:
    """Aggregates of one group; raises OutOfRangeError for a confidence outside (0, 1)."""
    level = group.results[0].confidence if confidence is None else confidence
    scores = group.scores()
    return GroupSummary(
        name=group.name,
        runs=len(group.results),
        tasks=tuple(
            (name, stratified_bootstrap(scores[:, [k]], mean_score, **_resampling(level)))
            for k, name in enumerate(group.task_names)
        ),
        mean=stratified_bootstrap(scores, mean_score, **_resampling(level)),
        interquartile_mean=stratified_bootstrap(scores, interquartile_mean, **_resampling(level)),
        optimality_gap=stratified_bootstrap(scores, optimality_gap, **_resampling(level)),
    )


def compare_groups(better: RunGroup, reference: RunGroup, confidence: float | None = None) -> GroupComparison:
    """The difference better - reference over runs.

    Raises:
        ConfigError: groups that `require_comparable` refuses.
        OutOfRangeError: a confidence outside (0, 1).
    """
    require_comparable(better.results[0], reference.results[0])
    level = better.results[0].confidence if confidence is None else confidence
    names = better.task_names
    ours, theirs = better.scores(names), reference.scores(names)

    def mean_difference(first: Scores, second: Scores) -> float:
        return mean_score(first) - mean_score(second)

    def middle_difference(first: Scores, second: Scores) -> float:
        return interquartile_mean(first) - interquartile_mean(second)

    return GroupComparison(
        better=better.name,
        reference=reference.name,
        runs=(len(better.results), len(reference.results)),
        tasks=tuple(
            (
                name,
                independent_bootstrap(ours[:, [k]], theirs[:, [k]], mean_difference, **_resampling(level)),
            )
            for k, name in enumerate(names)
        ),
        mean=independent_bootstrap(ours, theirs, mean_difference, **_resampling(level)),
        interquartile_mean=independent_bootstrap(ours, theirs, middle_difference, **_resampling(level)),
        improvement=independent_bootstrap(ours, theirs, probability_of_improvement, **_resampling(level)),
    )


def _score(result: EvaluationResult, name: str) -> float:
    return next(task.mean_score for task in result.tasks if task.name == name)


class _Resampling(TypedDict):
    generator: np.random.Generator
    confidence: float
    whole_runs: bool


def _resampling(confidence: float) -> _Resampling:
    """A run is one policy for all tasks, so it is redrawn as a whole; every number starts from one seed."""
    return {"generator": np.random.default_rng(GROUP_SEED), "confidence": confidence, "whole_runs": True}
