"""Stages that make policies: collect, train, clone, distill."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Mapping
from typing import Any, cast

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.panels import write_panels
from mtrl.rollout import CollectionConfig, Policy, PolicySnapshot, policy_from
from mtrl.tasks import sampler_for
from mtrl.training import (
    RANDOM,
    SAVING,
    Agent,
    AgentFactory,
    Checkpoints,
    DrawsPanels,
    External,
    FollowsBudget,
    KeepsReplay,
    OffersTwin,
    OnlineConfig,
    RunRecorder,
    Trackers,
    TrainingConfig,
)

from .config import agent_of, distiller_of
from .console import Interrupted
from .demonstrations import demonstrations_of, needs_demonstrations
from .fitting import clock_of, evaluate_while_learning, fit, trackers_of
from .kept_replays import share_replays
from .learners import RankWork, train_on_learners
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
    if isinstance(factory, FollowsBudget):
        settings = factory.with_budget(settings, training.updates)
    needs = factory.needs(settings, session.tasks)
    clock = clock_of(needs, training, online or session.config.online)
    if kept.exists() and not again and not budget.raised_beyond(clock.budget):
        return
    if kept.exists() and label == "teacher":
        _log_what_stays(session)
    session.set_threads()
    if parents is None:
        parents = parents_of(session.config, session.tasks, needs.parents, place)
    learner = factory.build(settings, session.tasks, session.config.seed, parents=parents)
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(factory, DrawsPanels):
        write_panels(place, factory.panels)
    collection = collection or session.config.collection
    with (
        session.interrupt.message(LIBRARY_SAVING if isinstance(needs, External) else SAVING),
        budget.measured(),
    ):
        if session.config.runtime.learners and label == "teacher":
            until = time.time() + 60 * budget.left if budget.left else 0.0
            config, path = session.config, session.run.path.resolve()
            work = RankWork(config, path, label, settings, needs, clock, collection, first, until)
            run, finished = train_on_learners(session, work, cast(Agent, learner))
        else:
            share_replays(place, learner, 0, session.note)
            tracker = Trackers(trackers_of(session, label, place, learner))
            with contextlib.closing(tracker):
                run, finished = fit(
                    session,
                    learner,
                    needs,
                    clock,
                    lambda: demonstrations_of(session),
                    collection=collection,
                    first=first,
                    name=f"train {session.called(label)}",
                    tracker=tracker,
                    checkpoints=Checkpoints(place),
                    skip_episodes_below=collection.copies if needs.stream and collection.stagger else 0,
                    sampler=sampler_for(session.config.sampling, tuple(session.tasks)),
                    minutes=budget.left,
                    stop=lambda: session.interrupt.requested,
                    evaluate=lambda snapshot: evaluate_while_learning(session, label, snapshot),
                )
    updates = None if isinstance(needs, External) else cast(Agent, learner).updates
    _log_end(session, label, run, updates, budget, finished)
    save_policy(kept, learner.snapshot("evaluate"))
    if finished:
        # after the policy is kept, or a killed process would leave an older one for the finished one
        budget.forget()


def _log_end(
    session: Session, label: str, run: RunRecorder, updates: int | None, budget: TimeBudget, finished: bool
) -> None:
    """Raises Interrupted after Ctrl-C; `updates` of an agent, None of a baseline."""
    counted = f", {updates:,} updates" if run.clock.unit == "steps" and updates is not None else ""
    reached = f"{run.steps:,} of {run.clock.budget:,} {run.clock.unit}"
    if not finished and session.interrupt.requested:
        raise Interrupted(f"{session.called(label)} stopped after {reached}")
    if not finished:
        budget.log_end(session, f"{session.called(label)}, {reached}{counted}")
    else:
        session.log(f"{session.called(label)}: {run.steps:,} {run.clock.unit}{counted}")
    if updates == 0:
        session.warn(
            f"{session.called(label)} learned nothing: no task came to a batch of transitions after "
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
