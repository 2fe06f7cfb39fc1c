"""The figures of a whole run in one small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import read_saved, write_record
from .results import EvaluationResult

if TYPE_CHECKING:
    from mtrl.deployment import DeploymentReport


MEANS = ("success", "success_tasks", "score", "score_tasks", "broken_episodes")
"""Figures of a policy that an evaluation recomputes, behind its label."""


def summarise(
    run: Path,
    results: list[EvaluationResult],
    deployment: DeploymentReport | None,
    wall_seconds: float,
) -> dict[str, Any]:
    """Writes `summary.json` and returns it; figures of stages that did not run again stay.

    `<policy>_success` is the mean success and `<policy>_score` the mean score, as `mtrl.evaluation.results`
    defines them and every table prints them; the score is left out where it is the mean success.
    `<policy>_success_tasks` and `<policy>_score_tasks` say of how many tasks, "2 of 3", where it is not all;
    `<policy>_broken_episodes` how many broke, if any did. `point_<policy>_success` is the mean success of the
    multimodal tasks alone; `point_modes_kept` is the share of the rarer mode among the student's successes,
    at most 0.5; `realtime_success` counts real-time episodes, `realtime_episodes` how many there were;
    `wall_seconds` adds up all sessions of the run. `random` and `constant` are
    policies like any other.
    """
    record = read_saved(run / "summary.json") | {"wall_seconds": round(wall_seconds, 1)}
    for result in results:
        label = result.policy.label
        modes = read_saved(run / "modes" / f"{label}.json")
        for figure in MEANS:
            record.pop(f"{label}_{figure}", None)
        record |= {f"{label}_{figure}": value for figure, value in _means(result).items()}
        several = [task.success_any.rate for task in result.tasks if task.name in modes]
        if several:
            record[f"point_{label}_success"] = sum(several) / len(several)
        for found in modes.values():
            counts = list(found["successes"].values())
            record[f"point_{label}_modes"] = found["successes"]
            if label == "student":
                record["point_modes_kept"] = min(counts) / max(1, sum(counts))
    latency = read_saved(run / "latency.json")
    if latency:
        label = latency.get("policy", "student")
        record[f"{label}_latency_us_p50"] = latency["p50"]
        record[f"{label}_latency_us_p99"] = latency["p99"]
    if deployment is not None:
        record["realtime_success"] = deployment.successes
        record["realtime_episodes"] = len(deployment.episodes)
        record["deadline_miss_fraction"] = deployment.deadline_miss_fraction
    write_record(run / "summary.json", record, overwrite=True)
    return record


def _means(result: EvaluationResult) -> dict[str, Any]:
    """The policy's entries of `MEANS`."""
    found: dict[str, Any] = {}
    mean, total = result.mean, len(result.every_task)
    if mean.success_any is not None:
        found["success"] = mean.success_any.rate
        if len(result.success_tasks) < total:
            found["success_tasks"] = f"{len(result.success_tasks)} of {total}"
    if mean.score is not None and not result.by_success:
        found["score"] = mean.score
        if len(result.normalised_tasks) < total:
            found["score_tasks"] = f"{len(result.normalised_tasks)} of {total}"
    if result.broken:
        found["broken_episodes"] = len(result.broken)
    return found
