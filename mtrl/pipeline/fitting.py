"""A learner's loop in a session: its clock, source, trackers and evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from mtrl.data import Trajectories
from mtrl.distributed import fragments_for
from mtrl.evaluation import EvaluationResult, PolicyReference, Provenance, evaluate
from mtrl.rollout import CollectionConfig, Fragments, PolicySnapshot
from mtrl.structured import plain
from mtrl.training import (
    RANDOM,
    Agent,
    Baseline,
    Checkpoints,
    Clock,
    CosineTracker,
    DatasetSource,
    External,
    GroupSource,
    JsonlTracker,
    MeasuresConflict,
    Needs,
    OnlineConfig,
    RunRecorder,
    Source,
    StreamSource,
    TensorBoardTracker,
    Tracker,
    TrainingConfig,
    WandbTracker,
    progress,
    run_baseline,
)

from .session import Session

RESUMED_SEED = 7_000_003
"""Added to the seed of lanes that a resumed run opens again, so that they do not repeat their episodes."""


def fit(
    session: Session,
    learner: Agent | Baseline,
    needs: Needs,
    clock: Clock,
    demonstrations: Callable[[], Mapping[int, Trajectories]],
    *,
    name: str,
    tracker: Tracker,
    checkpoints: Checkpoints | None = None,
    collection: CollectionConfig | None = None,
    first: PolicySnapshot = RANDOM,
    **recorder: Any,  # noqa: ANN401 - the keywords of RunRecorder
) -> tuple[RunRecorder, bool]:
    """Runs a learner's loop under a progress bar called `name`; returns its record, and whether the budget
    is spent.
    """
    from mtrl.training import learn

    with progress(name, clock.budget) as bar:

        def show(run: RunRecorder, metrics: Mapping[str, float]) -> None:
            shown = {"loss": metrics["loss"]} if "loss" in metrics else {}
            bar.advance(run.steps - bar.done, **shown, **run.statistics.recent(tuple(session.tasks)))

        run = RunRecorder(clock, tracker, checkpoints, session.tasks.names, on_progress=show, **recorder)
        if isinstance(needs, External):
            return run, run_baseline(cast(Baseline, learner), run)
        config, tasks, chosen = session.config, session.tasks, collection or session.config.collection

        def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
            seed = config.seed + (RESUMED_SEED if steps else 0)
            return fragments_for(tasks, config.runtime, chosen, snapshot, seed, session.show_fault)

        def stream() -> Source:
            return StreamSource(open_fragments, tasks.names, clock.warmup, first)

        return run, learn(cast(Agent, learner), source_of(session, needs, demonstrations, stream), run)


def clock_of(needs: Needs, training: TrainingConfig, online: OnlineConfig) -> Clock:
    """In environment steps for an agent that collects, otherwise in updates."""
    if not needs.counts_steps:
        return Clock.of_updates(training)
    return Clock.of_steps(online, max(online.warmup, needs.stream.warmup) if needs.stream else 0)


def source_of(
    session: Session,
    needs: Needs,
    demonstrations: Callable[[], Mapping[int, Trajectories]],
    stream: Callable[[], Source],
) -> Source:
    """The agent's data: demonstrations, continuous collection, which `stream` makes, groups, or
    demonstrations first.
    """
    online: Source | None = None
    if needs.stream:
        online = stream()
    elif needs.online is not None:
        online = GroupSource(lambda: session.rollouts)
    if needs.offline is not None:
        return DatasetSource(demonstrations, online)
    assert online is not None, "`Needs` must name demonstrations, an online source, or both"
    return online


def trackers_of(session: Session, label: str, place: Path, learner: object) -> list[Tracker]:
    """The files of every run, the configured trackers, and the cosines of a learner that measures them."""
    tracking, run = session.config.tracking, session.run.path.name
    trackers: list[Tracker] = [JsonlTracker(place)]
    if isinstance(learner, MeasuresConflict):
        trackers.append(CosineTracker(place, learner, session.tasks.names))
    if tracking.tensorboard:
        trackers.append(TensorBoardTracker(place))
    if tracking.wandb.effective_mode != "disabled":
        grouped = dataclasses.replace(tracking.wandb, group=tracking.wandb.group or run)
        settings = plain(session.config)
        trackers.append(WandbTracker(place, grouped, run_name=f"{run}/{label}", settings=settings))
    return trackers


def evaluate_while_learning(session: Session, label: str, snapshot: PolicySnapshot) -> EvaluationResult:
    """Every task on the configured starts, without exploration."""
    reference = PolicyReference(label=label, kind=label, identity="", version=snapshot.version).by_agent(
        session.config.agent
    )
    protocol, origin = session.config.evaluation, Provenance.collect()
    return evaluate(
        session.rollouts,
        session.tasks,
        snapshot,
        protocol,
        reference,
        origin,
        on_result=session.show_broken,
    )
