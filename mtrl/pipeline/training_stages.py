"""Stages that make policies: collect, train, clone, distill."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from mtrl.data import Trajectories
from mtrl.distributed import fragments_for
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import EvaluationResult, PolicyReference, Provenance, evaluate
from mtrl.panels import write_panels
from mtrl.rollout import CollectionConfig, Fragments, Policy, PolicySnapshot, policy_from
from mtrl.structured import plain
from mtrl.tasks import sampler_for
from mtrl.training import (
    RANDOM,
    SAVING,
    Agent,
    AgentFactory,
    Baseline,
    Checkpoints,
    Clock,
    CosineTracker,
    DatasetSource,
    DrawsPanels,
    External,
    FollowsBudget,
    GroupSource,
    JsonlTracker,
    KeepsReplay,
    MeasuresConflict,
    Needs,
    OffersTwin,
    OnlineConfig,
    RunRecorder,
    Source,
    StreamSource,
    TensorBoardTracker,
    Tracker,
    Trackers,
    TrainingConfig,
    WandbTracker,
    learn,
    progress,
    run_baseline,
)

from .config import agent_of, distiller_of
from .console import Interrupted
from .demonstrations import demonstrations_of, needs_demonstrations
from .parents import parent_snapshots, parents_of
from .policies import load_policy, save_policy
from .requirements import Plan
from .session import Session
from .time_budget import TimeBudget

RESUMED_SEED = 7_000_003
"""Added to the seed of lanes that a resumed run opens again, so that they do not repeat their episodes."""

LIBRARY_SAVING = "stopping after this step or round of updates and saving a checkpoint"
"""Printed on Ctrl-C while a library's own loop trains."""


def collect_stage(session: Session) -> None:
    """Collects the missing demonstrations and prints their number; nothing for an agent that needs none."""
    _, factory, settings = agent_of(session.config)
    if not needs_demonstrations(session.config, session.tasks, factory.needs(settings, session.tasks)):
        return
    data = demonstrations_of(session)
    episodes = sum(part.episode_count for part in data.values())
    steps = sum(part.step_count for part in data.values())
    session.log(
        f"demonstrations: {episodes} episodes, {steps:,} decisions of "
        f"{len(data)} {'task' if len(data) == 1 else 'tasks'}"
    )


def check_train(plan: Plan) -> int:
    """Requires steps beyond the random play that alone would use them up; see `Stage.requires`."""
    online, stream = plan.config.online, plan.needs.stream
    warmup = max(online.warmup, stream.warmup) if stream else 0
    if stream and online.steps <= warmup:
        raise ConfigError(
            f"online.steps={online.steps} is not above online.warmup={warmup}, the random play before "
            "the first update, so that nothing would be learned; raise steps or lower online.warmup"
        )
    saves = isinstance(plan.factory, KeepsReplay) and plan.factory.saves_replay(plan.settings)
    return plan.checkpoint_bytes(plan.replay_bytes if saves else 0)


def train_stage(session: Session) -> None:
    """Trains the configured agent, on demonstrations or while it collects; its policy is the teacher."""
    _, factory, settings = agent_of(session.config)
    _train(session, "teacher", factory, settings, session.config.training)


def check_clone(plan: Plan) -> int:
    """Requires an agent with a behaviour-cloning counterpart."""
    _twin_of(plan.name, plan.factory, plan.settings)
    return plan.checkpoint_bytes()


def clone_stage(session: Session) -> None:
    """Trains the behaviour-cloning counterpart of the configured agent."""
    name, factory, settings = agent_of(session.config)
    twin = _twin_of(name, factory, settings)
    training = dataclasses.replace(session.config.training, updates=session.config.cloning.updates)
    # without the parents of the agent: the counterpart shows what demonstrations alone achieve
    _train(session, "bc", factory, twin, training, parents={})


def check_distill(plan: Plan) -> int:
    """Requires a teacher that the distiller can learn from."""
    parents = parents_of(plan.config, plan.tasks, ("teacher",))
    teacher = parents.get("teacher") or policy_from(plan.snapshot, plan.tasks)
    distiller, _ = distiller_of(plan.config, plan.tasks)
    distiller.build(plan.config.distillation, plan.tasks, plan.config.seed, parents={"teacher": teacher})
    return plan.checkpoint_bytes()


def distill_stage(session: Session, *, again: bool = False) -> None:
    """Distils the one-forward student; one that is there stays, unless `again`, until the new one is done."""
    settings, place = session.config.distillation, session.run.training("student")
    training = dataclasses.replace(session.config.training, updates=settings.updates)
    online = dataclasses.replace(session.config.online, steps=settings.steps, warmup=0)
    collection = dataclasses.replace(session.config.collection, steps=settings.round)
    kept = (session.run.policies / "student").exists()
    if kept and not again and not TimeBudget(session, place).raised:
        return
    snapshots = parent_snapshots(session.config, session.tasks, ("teacher",), place)
    if "teacher" not in snapshots:
        snapshots["teacher"], _ = load_policy(session.run.policies / "teacher", session.tasks)
    teacher, (distiller, _) = snapshots["teacher"], distiller_of(session.config, session.tasks)
    _train(
        session,
        "student",
        distiller,
        settings,
        training,
        online=online,
        collection=collection,
        parents={"teacher": policy_from(teacher, session.tasks)},
        first=teacher,
        again=again,
    )


def _twin_of(name: str, factory: AgentFactory, settings: Any) -> Any:  # noqa: ANN401 - the factory's dataclass
    if not isinstance(factory, OffersTwin):
        raise UnsupportedError(
            f"agent {name!r} has no behaviour-cloning counterpart; leave the stage 'clone' out"
        )
    return factory.twin(settings)


def _train(
    session: Session,
    label: str,
    factory: AgentFactory,
    settings: Any,  # noqa: ANN401 - the factory's own dataclass
    training: TrainingConfig,
    *,
    online: OnlineConfig | None = None,
    collection: CollectionConfig | None = None,
    parents: Mapping[str, Policy] | None = None,
    first: PolicySnapshot = RANDOM,
    again: bool = False,
) -> None:
    """Trains and keeps one policy of the run; one that is finished stays, unless `again`. `online` and
    `collection` are the run's own unless given, and `first` plays the warm-up.
    """
    place, kept = session.run.training(label), session.run.policies / label
    budget = TimeBudget(session, place)
    if kept.exists() and not again and not budget.raised:
        return
    if kept.exists() and label == "teacher":
        _log_what_stays(session)
    session.set_threads()
    if isinstance(factory, FollowsBudget):
        settings = factory.with_budget(settings, training.updates)
    needs = factory.needs(settings, session.tasks)
    if parents is None:
        parents = parents_of(session.config, session.tasks, needs.parents, place)
    learner = factory.build(settings, session.tasks, session.config.seed, parents=parents)
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(factory, DrawsPanels):
        write_panels(place, factory.panels)
    tracker = Trackers(_trackers_of(session, label, place, learner))
    collection = collection or session.config.collection
    try:
        with (
            session.interrupt.message(LIBRARY_SAVING if isinstance(needs, External) else SAVING),
            budget.measured(),
        ):
            run, finished = fit(
                session,
                learner,
                needs,
                clock_of(needs, training, online or session.config.online),
                lambda: demonstrations_of(session),
                collection=collection,
                first=first,
                name=f"train {label}",
                tracker=tracker,
                checkpoints=Checkpoints(place),
                skip_episodes_below=collection.copies if needs.stream and collection.stagger else 0,
                sampler=sampler_for(session.config.sampling, tuple(session.tasks)),
                minutes=budget.left,
                stop=lambda: session.interrupt.requested,
                evaluate=lambda snapshot: _evaluate(session, label, snapshot),
            )
    finally:
        tracker.close()
    updates = None if isinstance(needs, External) else cast(Agent, learner).updates
    _log_end(session, label, run, updates, budget, finished)
    save_policy(kept, learner.snapshot("evaluate"))
    if finished:
        # after the policy is kept, or a killed process would leave an older one for the finished one
        budget.forget()


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
    with progress(name, clock.budget) as bar:

        def show(run: RunRecorder, metrics: Mapping[str, float]) -> None:
            shown = {"loss": metrics["loss"]} if "loss" in metrics else {}
            bar.advance(run.steps - bar.done, **shown, **run.statistics.recent(tuple(session.tasks)))

        run = RunRecorder(clock, tracker, checkpoints, session.tasks.names, on_progress=show, **recorder)
        if isinstance(needs, External):
            return run, run_baseline(cast(Baseline, learner), run)
        chosen = collection or session.config.collection
        source = source_of(session, needs, clock, demonstrations, chosen, first)
        return run, learn(cast(Agent, learner), source, run)


def clock_of(needs: Needs, training: TrainingConfig, online: OnlineConfig) -> Clock:
    """In environment steps for an agent that collects, otherwise in updates."""
    if not needs.counts_steps:
        return Clock.of_updates(training)
    return Clock.of_steps(online, max(online.warmup, needs.stream.warmup) if needs.stream else 0)


def source_of(
    session: Session,
    needs: Needs,
    clock: Clock,
    demonstrations: Callable[[], Mapping[int, Trajectories]],
    collection: CollectionConfig,
    first: PolicySnapshot,
) -> Source:
    """The agent's data: demonstrations, continuous collection, which `first` begins, groups, or
    demonstrations first.
    """
    config, tasks = session.config, session.tasks

    def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
        seed = config.seed + (RESUMED_SEED if steps else 0)
        return fragments_for(tasks, config.runtime, collection, snapshot, seed, session.show_fault)

    online: Source | None = None
    if needs.stream:
        online = StreamSource(open_fragments, tasks.names, clock.warmup, first)
    elif needs.online is not None:
        online = GroupSource(lambda: session.rollouts)
    if needs.offline is not None:
        return DatasetSource(demonstrations, online)
    assert online is not None, "`Needs` must name demonstrations, an online source, or both"
    return online


def _trackers_of(session: Session, label: str, place: Path, learner: object) -> list[Tracker]:
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


def _evaluate(session: Session, label: str, snapshot: PolicySnapshot) -> EvaluationResult:
    """Every task on the configured starts, without exploration."""
    reference = PolicyReference(label=label, kind=label, identity="", version=snapshot.version)
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


def _log_end(
    session: Session, label: str, run: RunRecorder, updates: int | None, budget: TimeBudget, finished: bool
) -> None:
    """Raises Interrupted after Ctrl-C; `updates` of an agent, None of a baseline."""
    counted = f", {updates:,} updates" if run.clock.unit == "steps" and updates is not None else ""
    reached = f"{run.steps:,} of {run.clock.budget:,} {run.clock.unit}"
    if not finished and session.interrupt.requested:
        raise Interrupted(f"{label} stopped after {reached}")
    if not finished:
        budget.log_end(session, f"{label}, {reached}{counted}")
    else:
        session.log(f"{label}: {run.steps:,} {run.clock.unit}{counted}")
    if updates == 0:
        session.warn(
            f"{label} learned nothing: no task came to a batch of transitions after "
            f"online.warmup={session.config.online.warmup}; raise steps, or lower agent.batch_size or "
            "online.warmup"
        )


def _log_what_stays(session: Session) -> None:
    """Prints what was made of a teacher that is now trained further, and how to make it again."""
    student, run = (session.run.policies / "student").exists(), str(session.run.path)
    if student or session.run.artefact.exists():
        what = "its student and what was exported of it stay" if student else "what was exported of it stays"
        command = shlex.join(["mtrl", "distill" if student else "export", run, "--overwrite"])
        session.log(f"the teacher is trained further; {what} as before. Afterwards: {command}")
