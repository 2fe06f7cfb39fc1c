"""Comparing two policies on the same starts under the same protocol, and refusing anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.reading import Json
from mtrl.structured import flat

from .broken import BrokenEpisode, UnmeasuredTask
from .paired_tests import SequentialTest, exact_mcnemar, sequential_test
from .pairs import common_episodes
from .results import EvaluationResult, TaskResult
from .statistics import Estimate, TaskMeans, paired_differences

_Name = TypeVar("_Name", str, int)

_Outcomes = Callable[[EvaluationResult, str], Sequence[float]]

COMPARISON_SEED = 0
"""Seed of the resampling behind every interval of a difference, so that a report repeats itself."""


@dataclass(frozen=True)
class TaskComparison:
    """How much better one policy is than another on one task."""

    name: str
    kind: str
    """What is measured, as in `Score`: "success" or "return"."""
    starts: int
    score: Estimate | None
    """Mean difference of the normalised scores, with a paired bootstrap interval; None for a return
    without a range."""
    episode_return: Estimate
    """Mean difference of the undiscounted returns, with a paired bootstrap interval."""
    gained: int | None
    """Starts that the first policy solved and the reference did not; None where returns are measured."""
    lost: int | None
    """Starts that the reference solved and the first policy did not; None where returns are measured."""


@dataclass(frozen=True)
class Comparison:
    """How much better one policy is than another, on common starts."""

    better: str
    """Label of the policy the difference speaks for."""
    reference: str
    """Label of the policy it is compared with."""
    success: Estimate | None
    """Difference of the mean success, of the tasks measured by it, with a paired bootstrap interval; None
    without such tasks."""
    gained: int
    """Starts of these tasks that the first policy solved and the reference did not."""
    lost: int
    """Starts of these tasks that the reference solved and the first policy did not."""
    confidence: float
    """Level of the intervals, in (0, 1)."""
    score: Estimate | None
    """Difference of the mean score, of the tasks that have one; equal to `success` where every task is
    measured by success; None where no task has a score."""
    tasks: tuple[TaskComparison, ...]
    """One per task with a common start, in the order of the first policy's result."""
    mcnemar: float | None
    """Exact p-value of the starts gained and lost on tasks measured by success; None without such tasks."""
    sequential: SequentialTest | None
    """The same starts in the order of their numbers, tested so that more may be added until it decides."""
    broken: tuple[BrokenEpisode, ...] = ()
    """The starts that are left out for both, since the episode of one of them broke."""

    @property
    def changed(self) -> tuple[int, int] | None:
        """Starts gained and lost on tasks measured by success; None without such tasks."""
        return (self.gained, self.lost) if self.success is not None else None

    @property
    def starts(self) -> int:
        """Common starts of all tasks."""
        return sum(task.starts for task in self.tasks)


def require_comparable(first: EvaluationResult, second: EvaluationResult) -> None:
    """Refuses two results that were not measured under one protocol on the same starts.

    The order of the tasks does not matter. Episodes that broke count as measured here.

    Raises:
        ConfigError: different tasks, protocols, splits or starts; the message names the difference.
    """
    pair = f"results {first.policy.shown!r} and {second.policy.shown!r} cannot be compared"
    remedy = "evaluate both with the same command"
    if first.split is not second.split:
        raise ConfigError(
            f"{pair}: split {first.split.name.lower()} against {second.split.name.lower()}; {remedy}"
        )
    ours = {task.name: task for task in first.every_task}
    theirs = {task.name: task for task in second.every_task}
    alone = _alone(first, ours.keys() - theirs.keys(), second, theirs.keys() - ours.keys())
    if alone:
        raise ConfigError(f"{pair}: {alone}; {remedy}")
    for name in sorted(ours):
        if ours[name].protocol_hash != theirs[name].protocol_hash:
            raise ConfigError(
                f"{pair}: task {name!r} has protocol {ours[name].protocol_hash} against "
                f"{theirs[name].protocol_hash}: {_what_differs(ours[name], theirs[name])}; {remedy}"
            )
        mine, other = _starts(first, name), _starts(second, name)
        alone = _alone(first, mine - other, second, other - mine)
        if alone:
            raise ConfigError(
                f"{pair}: starts of task {name!r} differ, {alone} "
                f"({len(mine)} against {len(other)} starts); {remedy}"
            )


def are_comparable(first: EvaluationResult, second: EvaluationResult) -> bool:
    """Whether `require_comparable` lets the two pass."""
    try:
        require_comparable(first, second)
    except ConfigError:
        return False
    return True


def doubts(first: EvaluationResult, second: EvaluationResult) -> tuple[str, ...]:
    """What differs between two comparable results without changing the protocol, one phrase each.

    Such a difference can still move a result: versions of packages and the seed of a policy's own noise.
    """
    ours, theirs = first.provenance.packages, second.provenance.packages
    absent = "not installed"
    found = [
        f"{package} {ours.get(package, absent)} against {theirs.get(package, absent)}"
        for package in sorted({*ours, *theirs})
        if ours.get(package) != theirs.get(package)
    ]
    if first.seed != second.seed:
        found.append(f"evaluation.seed {first.seed} against {second.seed}")
    return tuple(found)


def compare(
    better: EvaluationResult,
    reference: EvaluationResult,
    generator: np.random.Generator | None = None,
    confidence: float | None = None,
) -> Comparison:
    """The difference better - reference; resampling seeded with COMPARISON_SEED by default. A start at which
    the episode of either broke is left out for both.

    Args:
        better: the policy the difference speaks for.
        reference: the policy it is compared with.
        generator: source of the resampling.
        confidence: level of the intervals, in (0, 1); that of `better` when None.

    Raises:
        ConfigError: results that `require_comparable` refuses, or that have no start in common.
        OutOfRangeError: a confidence outside (0, 1).
    """
    require_comparable(better, reference)
    better, reference = common_episodes([better, reference])
    level = better.confidence if confidence is None else confidence
    names = better.task_names

    def resampled(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> TaskMeans | None:
        source = generator or np.random.default_rng(COMPARISON_SEED)
        return paired_differences(ours, theirs, source, confidence=level) if ours else None

    def by_task(
        outcomes: Callable[[EvaluationResult, str], Sequence[float]], names: Sequence[str]
    ) -> list[list[Sequence[float]]]:
        return [[outcomes(result, name) for name in names] for result in (better, reference)]

    normalised = [task.name for task in better.normalised_tasks]
    by_success = [task.name for task in better.success_tasks]
    solved = by_task(_successes, by_success)
    success = resampled(*solved)
    # without a task measured by its return the scores are the successes, and so are their intervals
    alone = len(by_success) == len(names)
    scores = success if alone else resampled(*by_task(EvaluationResult.normalised_scores, normalised))
    returns = resampled(*by_task(_returns, names))
    assert returns is not None, "a result has tasks"
    score_of = dict(zip(normalised, scores.tasks if scores else (), strict=True))
    changed = {name: _changed(*pair) for name, *pair in zip(by_success, *solved, strict=True)}
    tasks = [
        TaskComparison(
            task.name, task.score.kind, task.episodes, score_of.get(task.name), episode_return,
            *changed.get(task.name, (None, None)),
        )
        for task, episode_return in zip(better.tasks, returns.tasks, strict=True)
    ]  # fmt: skip
    found = Comparison(
        better=better.policy.shown,
        reference=reference.policy.shown,
        success=success.mean if success else None,
        gained=sum(gained for gained, _ in changed.values()),
        lost=sum(lost for _, lost in changed.values()),
        confidence=level,
        score=scores.mean if scores else None,
        tasks=tuple(tasks),
        mcnemar=None,
        sequential=None,
        broken=better.broken,
    )
    if found.changed is None:
        return found
    sequential = _sequential(better, reference, by_success, 1.0 - level)
    return replace(found, mcnemar=exact_mcnemar(*found.changed), sequential=sequential)


def _changed(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> tuple[int, int]:
    """How many starts were gained, and how many lost."""
    difference = np.subtract(ours, theirs)
    return int((difference > 0).sum()), int((difference < 0).sum())


def _sequential(
    better: EvaluationResult, reference: EvaluationResult, names: Sequence[str], alpha: float
) -> SequentialTest:
    # by start, then by task: evaluating more starts later only adds to the end
    outcomes = sorted(
        (ours.start, place, ours.success_any, theirs.success_any)
        for place, name in enumerate(sorted(names))
        for ours, theirs in zip(better.task_episodes(name), reference.task_episodes(name), strict=True)
    )
    return sequential_test([row[2] for row in outcomes], [row[3] for row in outcomes], alpha)


def _what_differs(first: TaskResult | UnmeasuredTask, second: TaskResult | UnmeasuredTask) -> str:
    if first.protocol is None or second.protocol is None:
        return "its sizes, rates, horizon, reward or score differ (an older result file does not say which)"
    return ", ".join(protocol_differences(first.protocol, second.protocol))


def _successes(result: EvaluationResult, name: str) -> list[float]:
    return [float(episode.success_any) for episode in result.task_episodes(name)]


def _returns(result: EvaluationResult, name: str) -> list[float]:
    return [episode.episode_return for episode in result.task_episodes(name)]


def _starts(result: EvaluationResult, name: str) -> set[int]:
    return {episode.start for episode in result.every_episode if episode.task == name}


def _alone(first: EvaluationResult, ours: set[_Name], second: EvaluationResult, theirs: set[_Name]) -> str:
    """What either result has and the other lacks, in words; "" for nothing."""
    sides = ((first.policy.shown, ours), (second.policy.shown, theirs))
    return ", ".join(f"only {label!r} has {_some(sorted(values))}" for label, values in sides if values)


def _some(values: Iterable[object]) -> str:
    listed = [str(value) for value in values]
    tail = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + tail


def protocol_differences(first: Mapping[str, Json], second: Mapping[str, Json]) -> tuple[str, ...]:
    """One phrase per field that differs, such as "options.horizon is 200 against 500"."""
    ours, theirs = _leaves(first), _leaves(second)
    return tuple(
        f"{key} is {_said(ours, key)} against {_said(theirs, key)}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key) or (key in ours) != (key in theirs)
    )


def _leaves(protocol: Mapping[str, Json]) -> dict[str, Json]:
    """Dotted key -> value of what is set; the pairs of `options` by their names."""
    options = protocol.get("options")
    if isinstance(options, list):
        pairs = [pair for pair in options if isinstance(pair, list) and len(pair) == 2]
        protocol = {**protocol, "options": {str(name): setting for name, setting in pairs}}
    return {key: value for key, value in flat(protocol) if value != {}}


def _said(fields: dict[str, Json], key: str) -> str:
    return json.dumps(fields[key]) if key in fields else "not set"
