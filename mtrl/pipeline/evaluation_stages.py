"""Stages that assess policies: evaluate, deploy, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtrl import registry
from mtrl.deployment import EpisodeReport, deploy, permitted_mode
from mtrl.errors import ConfigError
from mtrl.evaluation import (
    EvaluationResult,
    Json,
    are_comparable,
    best_constant,
    modes_of,
    print_results,
    read_result,
    read_saved,
    write_record,
    write_result,
)
from mtrl.integrity import verify_manifest
from mtrl.rollout import JobResult, PolicySnapshot
from mtrl.tasks import MultimodalSuite, Split, start_id

from .plans import record_plans
from .policies import kept_policies, load_policy
from .requirements import Plan
from .session import Session
from .videos import record_drawn_tasks

RANDOM, CONSTANT = "random", "constant"
"""Labels of the results of policies that learn nothing."""

REALTIME_STARTS = 10_000
"""Real-time episodes begin at this test start, so that none of them was part of an evaluation."""


def evaluate_stage(session: Session) -> None:
    """Evaluates every policy of the run on the same starts; finished evaluations are read, not repeated."""
    results: list[EvaluationResult] = []
    paths: list[Json] = []
    for kept in kept_policies(session.run.path):
        snapshot, identity = load_policy(session.run.policies / kept, session.tasks)
        label, snapshot = session.config.evaluation.execution.applied(kept, snapshot)
        file = session.run.evaluations / f"{label}-{snapshot.version}.json"
        modes_file = session.run.path / "modes" / f"{label}.json"
        result = read_result(file) if file.exists() else None
        if result is None or result.policy.identity != identity:
            result, modes = _evaluate_with_modes(session, snapshot, label, identity)
            write_result(file, result, overwrite=True)
            write_record(modes_file, modes, overwrite=True)
        record_plans(session, snapshot, label, identity)
        results.append(result)
        found = read_saved(modes_file)
        paths += [{"policy": label, "paths": m["paths"], "obstacle": m["obstacle"]} for m in found.values()]
    if not results:
        raise ConfigError(f"{session.run.path} has no finished policy to evaluate; train one first")
    if paths:
        write_record(session.run.path / "point_paths.json", paths, overwrite=True)
    session.results = show_results(session, results)


def show_results(session: Session, results: list[EvaluationResult]) -> list[EvaluationResult]:
    """Prints the policies in one table and, for a run that learned while it collected, from before to after;
    nothing in a brief session.

    With `evaluation.random` and `evaluation.constant`, random play and the best constant actions are
    evaluated on the same starts first; their results come last.
    """
    from mtrl.report import learning_table

    protocol = session.config.evaluation
    references = [RANDOM] * protocol.random + [CONSTANT] * protocol.constant
    results = [*results, *(evaluate_reference(session, label, results[0]) for label in references)]
    if session.brief:
        return results
    print_results(results, session.console)
    learned = learning_table(session.run.path, results)
    if learned is not None:
        session.console.print(learned)
    return results


def evaluate_reference(session: Session, label: str, paired: EvaluationResult) -> EvaluationResult:
    """Random play, or the best constant actions, on the starts of `paired`; a result that is there is read.
    Costs simulation alone.
    """
    file, protocol = session.run.evaluations / f"{label}-0.json", session.config.evaluation
    if file.exists():
        found = read_result(file)
        if found.seed == protocol.seed and are_comparable(paired, found):
            return found
    snapshot = PolicySnapshot(label)
    if label == CONSTANT:
        with session.stopping_at_once("choosing constant actions"):
            snapshot = best_constant(session.rollouts, session.tasks, protocol)
        chosen = ", ".join(f"{name} {action}" for name, action in snapshot.config["actions"].items())
        session.log(f"best constant actions: {chosen}")
    found = session.evaluate(snapshot, label, label)
    write_result(file, found, overwrite=True)
    return found


def _evaluate_with_modes(
    session: Session, snapshot: PolicySnapshot, label: str, identity: str
) -> tuple[EvaluationResult, dict[str, Any]]:
    """One policy on the configured starts, and per multimodal task which ways it took."""
    tasks, modes = session.tasks, {}
    multimodal = [
        k for k, task in enumerate(tasks) if isinstance(registry.suite(task.suite), MultimodalSuite)
    ]

    def keep_modes(result: JobResult) -> None:
        if result.job.task_index in multimodal and result.episodes is not None:
            modes[tasks[result.job.task_index].name] = modes_of(tasks, result)

    outcome = session.evaluate(snapshot, label, identity, record=multimodal, on_result=keep_modes)
    return outcome, modes


def check_deploy(plan: Plan) -> int:
    """Requires a simulated robot of the configured name; see `Stage.requires`."""
    robot = plan.config.robot
    permitted_mode(registry.load("robot", robot.name), robot, "")
    return 0


def deploy_stage(session: Session) -> None:
    """One real-time episode per task on the configured robot, unless this artefact has run them."""
    names = session.tasks.names
    if _deployed(session.run.path, session.run.artefact, names):
        return
    session.close_rollouts()
    starts = [start_id(Split.TEST, REALTIME_STARTS + k) for k in range(len(names))]

    def show(episode: EpisodeReport) -> None:
        session.log(
            f"  {episode.task}: {episode.outcome}, "
            f"{episode.decisions} decisions at {episode.rate_hz:g} Hz, "
            f"{episode.deadline_misses} deadlines missed, {episode.final_state}",
        )
        for warning in episode.warnings:
            session.warn(f"  {warning}")
        session.stop_if_requested("deploying")

    session.log(f"real time on robot {session.config.robot.name!r}:")
    session.deployment = deploy(
        session.run.artefact,
        session.config.robot,
        names,
        starts,
        session.config.seed,
        session.run.path,
        overwrite=True,
        on_episode=show,
    )


def _deployed(run: Path, artefact: Path, names: Sequence[str]) -> bool:
    """Whether every task has a result of exactly this artefact."""
    identity = verify_manifest(artefact)
    files = [run / "deployments" / f"{name.replace('/', '-')}.json" for name in names]
    return all(read_saved(file).get("artefact") == identity for file in files)


def report_stage(session: Session) -> None:
    """Records videos of the tasks that need no graphics library, then writes the run's page."""
    from mtrl.report import write_report

    record_drawn_tasks(session, kept_policies(session.run.path))
    session.log(f"report: {write_report(session.run.path)}")
