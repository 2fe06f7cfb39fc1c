"""`python -m benchmarks.studies.reference_policies key=value...`:
policies without learning on a study's starts.

Evaluates uniformly random play of every task and, of the discrete tasks, every constant action; the best
one of each task, chosen on the very starts that it is reported for, is the policy `constant`. Finished
evaluations are kept, so that an interrupted run continues.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mtrl.evaluation import (
    EvaluationConfig,
    EvaluationResult,
    Json,
    PolicyReference,
    Provenance,
    evaluate,
    read_json,
    write_record,
    write_result,
)
from mtrl.launch.compose import compose
from mtrl.pipeline import run_name, task_set_of
from mtrl.rollout import LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import TaskSet


def evaluate_references(tasks: TaskSet, settings: EvaluationConfig, folder: Path) -> dict[str, float]:
    """Writes `evaluations/random.json` and `evaluations/constant.json` below `folder`.

    Returns task -> best constant action, as `constant_action/TASK`.
    """
    files = {label: folder / "evaluations" / f"{label}.json" for label in ("random", "constant")}
    if not files["random"].exists():
        write_result(files["random"], _evaluated(tasks, settings, "random", {}))
    best = {
        task.name: _best_constant(TaskSet([task]), settings, folder / "constants.json")
        for task in tasks
        if task.action.is_discrete
    }
    if best and not files["constant"].exists():
        chosen = TaskSet([task for task in tasks if task.name in best])
        write_result(files["constant"], _evaluated(chosen, settings, "constant", {"actions": best}))
    return {f"constant_action/{name}": float(action) for name, action in best.items()}


def _best_constant(task: TaskSet, settings: EvaluationConfig, notes: Path) -> int:
    name, count = task.names[0], task[0].action.discrete
    for action in range(count):
        known = _notes(notes)
        if f"{name} {action}" in known:
            continue
        result = _evaluated(task, settings, "constant", {"actions": {name: action}})
        returns = [episode.episode_return for episode in result.episodes]
        known[f"{name} {action}"] = sum(returns) / len(returns)
        write_record(notes, dict(known.items()), overwrite=True)
        print(f"{name}: action {action} returns {known[f'{name} {action}']:.1f}", flush=True)
    means = _notes(notes)
    return max(range(count), key=lambda action: means[f"{name} {action}"])


def _notes(path: Path) -> dict[str, float]:
    found = read_json(path) if path.exists() else {}
    assert isinstance(found, dict), "notes are an object"
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def _evaluated(
    tasks: TaskSet, settings: EvaluationConfig, kind: str, config: Mapping[str, object]
) -> EvaluationResult:
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    try:
        return evaluate(
            rollouts,
            tasks,
            PolicySnapshot(kind, config),
            settings,
            PolicyReference(label=kind, kind=kind, identity="", version=0),
            Provenance.collect(),
        )
    finally:
        rollouts.close()


def main(words: Sequence[str]) -> int:
    """Evaluates, and writes a folder as a training does."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config = compose(list(words), command="train")
    folder = Path(config.output) / run_name(config)
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = evaluate_references(task_set_of(config), config.evaluation, folder)
    record: dict[str, Json] = {**found, "wall_seconds": round(time.monotonic() - began, 1)}
    write_record(folder / "summary.json", record, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
