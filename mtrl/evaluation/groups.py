"""Several runs of one method, seed by seed, and the comparison of two such groups.

The unit here is the run: intervals say what another set of seeds would give (Agarwal et al. 2021), while
those of `compare` say what other starts would give the same two policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

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
from .pairs import common_episodes
from .results import EvaluationResult
from .statistics import Estimate

GROUP_SEED = 0
"""Seed of the resampling of whole runs behind every number, so that a table repeats itself."""

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
        """Tasks whose scores are normalised, or all where none is, in the order of the first run's set."""
        first = self.results[0]
        return tuple(task.name for task in first.normalised_tasks or first.tasks)

    @property
    def by_return(self) -> bool:
        """Whether no task has a normalised score, so that returns are compared: by task, since returns of
        different tasks have no mean that says anything.
        """
        return not self.results[0].normalised_tasks

    def scores(self, names: Sequence[str] | None = None) -> Scores:
        """Mean normalised score or return of every run on every task, [R, K], in the order of `names`."""
        chosen = self.task_names if names is None else tuple(names)
        return np.array([[_score(result, name) for name in chosen] for result in self.results])


@dataclass(frozen=True)
class GroupSummary:
    """A group in a few numbers, each with a bootstrap interval over whole runs."""

    name: str
    runs: int
    tasks: tuple[tuple[str, Estimate], ...]
    """Task -> mean over runs of the normalised score, or of the return where no task has a score."""
    mean: Estimate | None
    """Over tasks; None of returns, as the two below."""
    interquartile_mean: Estimate | None
    optimality_gap: Estimate | None
    """How far runs fall short of a score of 1 on average."""


@dataclass(frozen=True)
class GroupComparison:
    """How much better one group's runs are than another's, each interval over the runs of both."""

    better: str
    reference: str
    runs: tuple[int, int]
    tasks: tuple[tuple[str, Estimate], ...]
    """Task -> difference of the mean normalised scores, or of the mean returns where no task has a score."""
    mean: Estimate | None
    """Over tasks; None of returns, as the next."""
    interquartile_mean: Estimate | None
    improvement: Estimate
    """Probability that a run of the first group beats one of the reference, averaged over tasks; 0.5 means
    no difference."""


def run_group(name: str, results: Sequence[EvaluationResult]) -> RunGroup:
    """Groups the runs of one method, on the starts that all of them played to their end.

    Raises:
        ConfigError: fewer than two runs, one policy twice, or runs that `require_comparable` refuses.
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
    return RunGroup(name, common_episodes(results))


def common_runs(groups: Sequence[RunGroup]) -> tuple[RunGroup, ...]:
    """Comparable groups on the starts that every run of each played to its end; see `common_episodes`."""
    left = iter(common_episodes([result for group in groups for result in group.results]))
    return tuple(RunGroup(group.name, tuple(islice(left, len(group.results)))) for group in groups)


def summarise_group(group: RunGroup, confidence: float | None = None) -> GroupSummary:
    """Aggregates of one group; raises OutOfRangeError for a confidence outside (0, 1)."""
    level = group.results[0].confidence if confidence is None else confidence
    scores = group.scores()

    def resampled(table: Scores, statistic: Callable[[Scores], float]) -> Estimate:
        source = np.random.default_rng(GROUP_SEED)
        return stratified_bootstrap(table, statistic, source, confidence=level, whole_runs=True)

    return GroupSummary(
        name=group.name,
        runs=len(group.results),
        tasks=tuple((name, resampled(scores[:, [k]], mean_score)) for k, name in enumerate(group.task_names)),
        mean=None if group.by_return else resampled(scores, mean_score),
        interquartile_mean=None if group.by_return else resampled(scores, interquartile_mean),
        optimality_gap=None if group.by_return else resampled(scores, optimality_gap),
    )


def compare_groups(better: RunGroup, reference: RunGroup, confidence: float | None = None) -> GroupComparison:
    """The difference better - reference over runs.

    Raises:
        ConfigError: groups that `require_comparable` refuses.
        OutOfRangeError: a confidence outside (0, 1).
    """
    require_comparable(better.results[0], reference.results[0])
    better, reference = common_runs([better, reference])
    level = better.results[0].confidence if confidence is None else confidence
    names, by_return = better.task_names, better.by_return
    ours, theirs = better.scores(names), reference.scores(names)

    def difference(of: Callable[[Scores], float]) -> Callable[[Scores, Scores], float]:
        return lambda first, second: of(first) - of(second)

    def resampled(first: Scores, second: Scores, statistic: Callable[[Scores, Scores], float]) -> Estimate:
        source = np.random.default_rng(GROUP_SEED)
        return independent_bootstrap(first, second, statistic, source, confidence=level, whole_runs=True)

    return GroupComparison(
        better=better.name,
        reference=reference.name,
        runs=(len(better.results), len(reference.results)),
        tasks=tuple(
            (name, resampled(ours[:, [k]], theirs[:, [k]], difference(mean_score)))
            for k, name in enumerate(names)
        ),
        mean=None if by_return else resampled(ours, theirs, difference(mean_score)),
        interquartile_mean=None if by_return else resampled(ours, theirs, difference(interquartile_mean)),
        improvement=resampled(ours, theirs, probability_of_improvement),
    )


def _score(result: EvaluationResult, name: str) -> float:
    task = next(task for task in result.tasks if task.name == name)
    return task.mean_score if task.is_normalised else task.mean_return
