"""Results whose every outcome is given, for tests that compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtrl.evaluation import EpisodeResult, EvaluationResult, PolicyReference, from_episodes
from mtrl.tasks import Split, TaskSet, start_id

from .samples import provenance


def outcome_result(
    label: str,
    tasks: TaskSet,
    outcomes: Mapping[str, Sequence[float]],
    *,
    identity: str = "",
    seed: int = 0,
    packages: Mapping[str, str] | None = None,
    created: str = "2031-05-04T12:00:00Z",
) -> EvaluationResult:
    """Outcome i of a task is that of its test start i: 1 or 0 where success counts, else the return."""
    episodes = [
        _episode(task.name, index, value, task.score.kind == "success")
        for task in tasks
        for index, value in enumerate(outcomes[task.name])
    ]
    origin = replace(provenance(), created=created)
    return from_episodes(
        tasks,
        episodes,
        policy=PolicyReference(label, label, identity or label, 0),
        split=Split.TEST,
        seed=seed,
        provenance=origin if packages is None else replace(origin, packages=packages),
    )


def _episode(name: str, index: int, value: float, by_success: bool) -> EpisodeResult:
    success = by_success and bool(value)
    return EpisodeResult(
        task=name,
        start=start_id(Split.TEST, index),
        episode_return=100.0 if by_success else float(value),
        success_any=success,
        success_end=success,
        length=50,
        terminated=False,
        truncated=True,
    )
