"""The figures of a whole run in one small file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import read_saved, write_record
from .results import EvaluationResult

if TYPE_CHECKING:
    from mtrl.deployment import DeploymentReport


def summarise(
    run: Path,
    results: list[EvaluationResult],
    deployment: DeploymentReport | None,
    wall_seconds: float,
) -> dict[str, Any]:
    """Writes `summary.json` and returns it; figures of stages that did not run again stay.

    `<policy>_success` is the mean success at any step over tasks measured by success, but for those with
    several modes; `<policy>_score` the mean normalised score over tasks measured by their return;
    `point_<policy>_success` is that of the multimodal tasks; `point_modes_kept` is the share of the
    rarer mode among the student's successes, at most 0.5; `realtime_success` counts real-time
    episodes, `realtime_episodes` how many there were; `wall_seconds` adds up all sessions of the run.
    `random` is a policy like any other.
    """
    record = read_saved(run / "summary.json") | {"wall_seconds": round(wall_seconds, 1)}
    for result in results:
        label = result.policy.label
        modes = read_saved(run / "modes" / f"{label}.json")
        plain = [
            task.success_any.rate
            for task in result.tasks
            if task.name not in modes and task.score.kind == "success"
        ]
        returns = [task.mean_score for task in result.normalised_tasks if task.score.kind == "return"]
        if returns:
            record[f"{label}_score"] = sum(returns) / len(returns)
        several = [task.success_any.rate for task in result.tasks if task.name in modes]
        if plain:
            record[f"{label}_success"] = sum(plain) / len(plain)
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
