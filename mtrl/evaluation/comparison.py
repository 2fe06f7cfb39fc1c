"""Comparing two policies on the same starts under the same protocol, and refusing anything else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mtrl.errors import ConfigError

from .results import EvaluationResult
from .statistics import Estimate, paired_bootstrap

COMPARISON_SEED = 0
"""Seed of the resampling behind every interval of a difference, so that a report repeats itself."""


@dataclass(frozen=True)
class Comparison:
    """How much better one policy is than another, on common starts."""

    better: str
    """Label of the policy the difference speaks for."""
    reference: str
    """Label of the policy it is compared with."""
    success: Estimate
    """Difference of the mean success rates (any decision), with a paired bootstrap interval."""
    gained: int
    """Episodes that the first policy solved and the reference did not."""
    lost: int
    """Episodes that the reference solved and the first policy did not."""


def require_comparable(first: EvaluationResult, second: EvaluationResult) -> None:
    """Refuses two results that were not measured under one protocol on the same starts.

    The order of the tasks does not matter.

    Raises:
        ConfigError: different tasks, protocol hashes, splits or starts; the message names the difference.
    """
    pair = f"results {first.policy.label!r} and {second.policy.label!r} cannot be compared"
    remedy = "evaluate both with the same command"
    if first.split is not second.split:
        raise ConfigError(
            f"{pair}: split {first.split.name.lower()} against {second.split.name.lower()}; {remedy}"
        )
    ours = {task.name: task.protocol_hash for task in first.tasks}
    theirs = {task.name: task.protocol_hash for task in second.tasks}
    only = sorted(ours.keys() ^ theirs.keys())
    if only:
        raise ConfigError(f"{pair}: only one of them has {_some(only)}; {remedy}")
    for name in sorted(ours):
        if ours[name] != theirs[name]:
            raise ConfigError(
                f"{pair}: task {name!r} has protocol {ours[name]} against {theirs[name]}: its sizes, rates, "
                f"horizon, reward or score differ; {remedy}"
            )
        uncommon = sorted(_starts(first, name) ^ _starts(second, name))
        if uncommon:
            raise ConfigError(
                f"{pair}: starts of task {name!r} differ, only one of them has {_some(uncommon)}; {remedy}"
            )


def are_comparable(first: EvaluationResult, second: EvaluationResult) -> bool:
    """Whether `require_comparable` lets the two pass."""
    try:
        require_comparable(first, second)
    except ConfigError:
        return False
    return True


def compare(
    better: EvaluationResult, reference: EvaluationResult, generator: np.random.Generator | None = None
) -> Comparison:
    """The difference better - reference of mean success; resampling seeded with COMPARISON_SEED by default.

    Raises:
        ConfigError: results that `require_comparable` refuses.
    """
    require_comparable(better, reference)
    ours = [[float(e.success_any) for e in better.task_episodes(name)] for name in better.task_names]
    theirs = [[float(e.success_any) for e in reference.task_episodes(name)] for name in better.task_names]
    pairs = [pair for one, two in zip(ours, theirs, strict=True) for pair in zip(one, two, strict=True)]
    return Comparison(
        better=better.policy.label,
        reference=reference.policy.label,
        success=paired_bootstrap(
            ours, theirs, generator or np.random.default_rng(COMPARISON_SEED), confidence=better.confidence
        ),
        gained=sum(one > two for one, two in pairs),
        lost=sum(one < two for one, two in pairs),
    )


def _starts(result: EvaluationResult, name: str) -> set[int]:
    return {episode.start for episode in result.task_episodes(name)}


def _some(values: Iterable[object]) -> str:
    listed = [str(value) for value in values]
    tail = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + tail
