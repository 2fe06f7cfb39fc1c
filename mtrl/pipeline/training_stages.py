"""Stages that make policies: collect, train, clone, distill."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from mtrl.distributed import fragments_for
from mtrl.errors import UnsupportedError
from mtrl.evaluation import EvaluationResult, PolicyReference, Provenance, evaluate
from mtrl.rollout import Fragments, Policy, PolicySnapshot, policy_from
from mtrl.tasks import sampler_for
from mtrl.training import (
    SAVING,
    Agent,
    AgentFactory,
    Baseline,
    Checkpoints,
    Clock,
    DatasetSource,
    DatasetThen,
    External,
    FollowsBudget,
    GroupSource,
    Needs,
    OffersTwin,
    RunRecorder,
    Source,
    StreamSource,
    Trackers,
    TrainingConfig,
    learn,
    progress,
    run_baseline,
)

from .config import agent_of, distiller_of
from .console import say
from .demonstrations import demonstrations_of
from .parents import parents_of
from .session import Interrupted, Session, load_policy, save_policy
from .time_budget import TimeBudget
from .tracking import trackers_of

RESUMED_SEED = 7_000_003
"""Added to the seed of lanes that a resumed run opens again, so that they do not repeat their episodes."""

LIBRARY_SAVING = "stopping after this step or round of updates and saving a checkpoint"
"""What Ctrl-C is answered while a library's own loop trains."""


def collect_stage(session: Session) -> None:
    """Collects what the run has not got yet and says what there is; nothing for an agent that needs none."""
    _, factory, settings = agent_of(session.config)
    needs = factory.needs(settings, session.tasks)
    distils = "distill" in session.config.stages
    if not distils and needs.offline is None:
        return
    data = demonstrations_of(session)
    episodes = sum(part.episode_count for part in data.values())
    steps = sum(part.step_count for part in data.values())
    session.console.print(
        f"demonstrations: {episodes} episodes, {steps:,} decisions of "
        f"{len(data)} {'task' if len(data) == 1 else 'tasks'}",
        highlight=False,
    )


def train_stage(session: Session) -> None:
    """Trains the configured agent, on demonstrations or while it collects; its policy is the teacher."""
    _, factory, settings = agent_of(session.config)
    _train(session, "teacher", factory, settings, session.config.training, session.run.path)


def clone_stage(session: Session) -> None:
    """Trains the behaviour-cloned twin of the configured agent."""
    name, factory, settings = agent_of(session.config)
    if not isinstance(factory, OffersTwin):
        raise UnsupportedError(f"agent {name!r} has no cloned twin; leave the stage 'clone' out")
    training = dataclasses.replace(session.config.training, updates=session.config.cloning.updates)
    place = session.run.path / "bc"
    # whatever the agent itself began from, the twin shows what demonstrations alone teach
    _train(session, "bc", factory, factory.twin(settings), training, place, parents={})


def distill_stage(session: Session, *, again: bool = False) -> None:
    """Distils the one-forward student; one that is there stays, unless `again`, until the new one is done."""
    settings = session.config.distillation
    training = dataclasses.replace(session.config.training, updates=settings.updates)
    place = session.run.path / "student"
    if session.policy_place("student").exists() and not again and not TimeBudget(session, place).raised:
        return
    parents = parents_of(session.config, session.tasks, ("teacher",), place)
    if "teacher" not in parents:
        snapshot, _ = load_policy(session.policy_place("teacher"))
        parents["teacher"] = policy_from(snapshot, session.tasks)
    _train(
        session,
        "student",
        distiller_of(session.config),
        settings,
        training,
        place,
        parents=parents,
        again=again,
    )


def _train(
    session: Session,
    label: str,
    factory: AgentFactory,
    settings: Any,  # noqa: ANN401 - the factory's own dataclass
    training: TrainingConfig,
    place: Path,
    *,
    parents: Mapping[str, Policy] | None = None,
    again: bool = False,
) -> None:
    """Trains and keeps one policy of the run; one that is finished stays, unless `again`."""
    budget = TimeBudget(session, place)
    present = session.policy_place(label).exists()
    if present and not again and not budget.raised:
        return
    if present and label == "teacher":
        _say_what_stays(session)
    session.set_threads()
    if isinstance(factory, FollowsBudget):
        settings = factory.with_budget(settings, training.updates)
    needs = factory.needs(settings, session.tasks)
    if parents is None:
        parents = parents_of(session.config, session.tasks, needs.parents, place)
    learner = factory.build(settings, session.tasks, session.config.seed, parents=parents)
    place.mkdir(parents=True, exist_ok=True)
    collection = session.config.collection
    tracker = Trackers(trackers_of(session, label, place, learner))
    clock, external = clock_of(session, needs, training), isinstance(needs, External)
    try:
        with (
            session.interrupt.promising(LIBRARY_SAVING if external else SAVING),
            progress(f"train {label}", clock.budget) as bar,
            budget.measured(),
        ):

            def show(run: RunRecorder, metrics: Mapping[str, float]) -> None:
                shown = {"loss": metrics["loss"]} if "loss" in metrics else {}
                bar.advance(run.steps - bar.done, **shown, **run.statistics.recent(tuple(session.tasks)))

            run = RunRecorder(
                clock,
                tracker,
                Checkpoints(place),
                session.tasks.names,
                skip_episodes_below=collection.copies if needs.stream and collection.stagger else 0,
                sampler=sampler_for(session.config.sampling, tuple(session.tasks)),
                minutes=budget.left,
                stop=lambda: session.interrupt.requested,
                evaluate=lambda snapshot: _evaluate(session, label, snapshot),
                on_progress=show,
            )
            if external:
                finished = run_baseline(cast(Baseline, learner), run)
            else:
                finished = learn(cast(Agent, learner), source_of(session, needs, clock), run)
    finally:
        tracker.close()
    updates = None if external else cast(Agent, learner).updates
    _say_how_it_ended(session, label, run, updates, budget, finished)
    save_policy(session.policy_place(label), learner.snapshot("evaluate"))
    if finished:
        # after the policy is kept, or a killed process would leave an older one for the finished one
        budget.forget()


def clock_of(session: Session, needs: Needs, training: TrainingConfig) -> Clock:
    """In environment steps for whoever collects, otherwise in updates."""
    if not needs.counts_steps:
        return Clock.of_updates(training)
    online = session.config.online
    return Clock.of_steps(online, max(online.warmup, needs.stream.warmup) if needs.stream else 0)


def source_of(session: Session, needs: Needs, clock: Clock) -> Source:
    """What the agent is fed from: demonstrations, continuous collection, groups, or demonstrations first."""
    config, tasks = session.config, session.tasks

    def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
        seed = config.seed + (RESUMED_SEED if steps else 0)
        return fragments_for(tasks, config.runtime, config.collection, snapshot, seed, session.show_fault)

    offline = DatasetSource(lambda: demonstrations_of(session)) if needs.offline is not None else None
    online: Source | None = None
    if needs.stream:
        online = StreamSource(open_fragments, tasks.names, clock.warmup)
    elif needs.online is not None:
        online = GroupSource(lambda: session.rollouts)
    if offline is None or online is None:
        found = offline or online
        assert found is not None, "an agent needs demonstrations, an online source, or both"
        return found
    return DatasetThen(offline, online)


def _evaluate(session: Session, label: str, snapshot: PolicySnapshot) -> EvaluationResult:
    """Every task on the configured starts, without exploration."""
    reference = PolicyReference(label=label, kind=label, identity="", version=snapshot.version)
    protocol, origin = session.config.evaluation, Provenance.collect()
    return evaluate(session.rollouts, session.tasks, snapshot, protocol, reference, origin)


def _say_how_it_ended(
    session: Session, label: str, run: RunRecorder, updates: int | None, budget: TimeBudget, finished: bool
) -> None:
    """Raises Interrupted after Ctrl-C; `updates` of an agent, None of a baseline."""
    counted = f", {updates:,} updates" if run.clock.unit == "steps" and updates is not None else ""
    reached = f"{run.steps:,} of {run.clock.budget:,} {run.clock.unit}"
    if not finished and session.interrupt.requested:
        raise Interrupted(f"{label} stopped after {reached}")
    if not finished:
        budget.reached(session, f"{label}, {reached}{counted}")
    else:
        say(session.console, f"{label}: {run.steps:,} {run.clock.unit}{counted}")
    if updates == 0:
        session.console.print(
            f"[yellow]{label} learned nothing: no task came to a batch of transitions after "
            f"online.warmup={session.config.online.warmup}; raise steps, or lower agent.batch_size or "
            "online.warmup[/yellow]",
            highlight=False,
        )


def _say_what_stays(session: Session) -> None:
    """Names what was made of a teacher that is now trained further, and how to make it again."""
    student, run = session.policy_place("student").exists(), str(session.run.path)
    if student or session.run.artefact.exists():
        what = "its student and what was exported of it stay" if student else "what was exported of it stays"
        command = shlex.join(["mtrl", "distill" if student else "export", run, "--overwrite"])
        say(session.console, f"the teacher is trained further; {what} as before. Afterwards: {command}")
