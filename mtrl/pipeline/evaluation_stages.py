"""Stages that assess policies: evaluate, deploy, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtrl import registry
from mtrl.deployment import DeploymentReport, EpisodeReport, deploy
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.evaluation import (
    EvaluationResult,
    Json,
    modes_of,
    read_kept,
    read_result,
    write_record,
    write_result,
)
from mtrl.integrity import verify_manifest
from mtrl.report import write_report
from mtrl.rollout import JobResult, PolicySnapshot
from mtrl.tasks import MultimodalSuite, Split, start_id

from .console import say
from .session import Session, load_policy
from .summary import show_results
from .videos import film_drawn_tasks

LABELS = ("teacher", "bc", "student")
"""Policies of a run, in the order of tables."""

REALTIME_STARTS = 10_000
"""Real-time episodes begin at this test start, so that none of them was part of an evaluation."""


def kept_policies(run: Path) -> list[str]:
    """Labels of the policies that the run has finished."""
    return [label for label in LABELS if (run / "policies" / label).exists()]


def chosen_policies(run: Path, labels: Sequence[str] | None) -> list[str]:
    """Of the policies that the run has finished those of the labels, each once, all without any."""
    kept = kept_policies(run)
    if not kept:
        raise ConfigError(f"{run} has no finished policy; train one first")
    for label in labels or ():
        if label not in kept:
            raise UnknownNameError("policy of this run", label, kept)
    return list(dict.fromkeys(labels or kept))


def evaluate_stage(session: Session) -> list[EvaluationResult]:
    """Evaluates every policy of the run on the same starts; finished evaluations are read, not repeated."""
    results: list[EvaluationResult] = []
    paths: list[Json] = []
    for label in kept_policies(session.run.path):
        snapshot, identity = load_policy(session.policy_place(label))
        file = session.run.evaluations / f"{label}-{snapshot.version}.json"
        if file.exists() and read_result(file).policy.identity == identity:
            results.append(read_result(file))
            continue
        result, modes = evaluate_policy(session, snapshot, label, identity)
        write_result(file, result, overwrite=True)
        write_record(session.run.path / "modes" / f"{label}.json", modes, overwrite=True)
        results.append(result)
    if not results:
        raise ConfigError(f"{session.run.path} has no finished policy to evaluate; train one first")
    for label in kept_policies(session.run.path):
        found = read_kept(session.run.path / "modes" / f"{label}.json")
        paths += [{"policy": label, "paths": m["paths"], "obstacle": m["obstacle"]} for m in found.values()]
    if paths:
        write_record(session.run.path / "point_paths.json", paths, overwrite=True)
    return show_results(session, results)


def evaluate_policy(
    session: Session, snapshot: PolicySnapshot, label: str, identity: str
) -> tuple[EvaluationResult, dict[str, Any]]:
    """One policy on the configured starts, and per multimodal task which ways it took."""
    tasks, modes = session.tasks, {}
    multimodal = [
        k for k, task in enumerate(tasks) if isinstance(registry.suite(task.suite), MultimodalSuite)
    ]

    def keep_modes(result: JobResult) -> None:
        if result.job.task_index in multimodal:
            modes[tasks[result.job.task_index].name] = modes_of(tasks, result)

    outcome = session.evaluate(snapshot, label, identity, record=multimodal, on_result=keep_modes)
    return outcome, modes


def deploy_stage(session: Session) -> DeploymentReport | None:
    """One real-time episode per task on the configured robot; None when this artefact has run them."""
    names = session.tasks.names
    if _flown(session.run.path, session.run.artefact, names):
        return None
    session.close_rollouts()
    starts = [start_id(Split.TEST, REALTIME_STARTS + k) for k in range(len(names))]

    def show(episode: EpisodeReport) -> None:
        say(
            session.console,
            f"  {episode.task}: {'success' if episode.success else 'failure'}, "
            f"{episode.decisions} decisions at {episode.rate_hz:g} Hz, "
            f"{episode.deadline_misses} deadlines missed, {episode.final_state}",
        )
        for warning in episode.warnings:
            session.console.print(f"  {warning}", style="yellow", markup=False, highlight=False)
        session.stop_if_asked("flying")

    say(session.console, f"real time on robot {session.config.robot.name!r}:")
    return deploy(
        session.run.artefact,
        session.config.robot,
        names,
        starts,
        session.config.seed,
        session.run.path,
        overwrite=True,
        on_episode=show,
    )


def _flown(run: Path, artefact: Path, names: Sequence[str]) -> bool:
    """Whether every task has a result of exactly this artefact."""
    identity = verify_manifest(artefact)
    files = [run / "deployments" / f"{name.replace('/', '-')}.json" for name in names]
    return all(read_kept(file).get("artefact") == identity for file in files)


def report_stage(session: Session) -> Path:
    """Films the tasks that need no graphics library, then writes the run's page."""
    film_drawn_tasks(session, kept_policies(session.run.path))
    page = write_report(session.run.path)
    say(session.console, f"report: {page}")
    return page
