"""Training on several learner processes: what the command does, and what every rank does."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from mtrl.data import MappedStorage
from mtrl.errors import UnsupportedError
from mtrl.evaluation import EvaluationResult
from mtrl.rollout import CollectionConfig, PolicySnapshot
from mtrl.tasks import sampler_for
from mtrl.training import (
    Agent,
    Checkpoints,
    Clock,
    External,
    Interruptible,
    MapsReplay,
    Needs,
    RunDirectory,
    RunRecorder,
    Source,
    StoredStream,
    StreamSource,
    Trackers,
    progress,
    require_format,
)

from .config import Config, agent_of, task_set_of
from .demonstrations import demonstrations_of
from .fitting import evaluate_while_learning, source_of, trackers_of
from .kept_replays import replay_folder, share_replays
from .parents import parents_of
from .session import Session

if TYPE_CHECKING:
    from mtrl.distributed import Learner, Progress


@dataclass(frozen=True)
class RankWork:
    """All that a rank needs to train; it travels to the learners."""

    config: Config
    run: Path
    label: str
    settings: Any
    """The agent's own dataclass."""
    needs: Needs
    clock: Clock
    collection: CollectionConfig
    first: PolicySnapshot
    """Plays the warm-up."""
    until: float
    """time.time() at which the minutes of training are over; 0 for none."""


def train_on_learners(session: Session, work: RankWork, learner: Agent) -> tuple[RunRecorder, bool]:
    """Trains on Ray as `fit` does here; `learner` gets the weights in the end. Returns the record, and
    whether the budget is spent.
    """
    if isinstance(work.needs, External):
        raise UnsupportedError(
            f"agent {session.config.agent['name']!r} keeps a loop of its own; leave runtime.learners out"
        )
    place, runtime = session.run.training(work.label), session.config.runtime
    if work.needs.offline is not None:
        demonstrations_of(session)
    # the learners need the processors
    session.close_rollouts()
    share_replays(place, learner, runtime.learners, session.note)
    run = RunRecorder(work.clock, Trackers([]), Checkpoints(place), session.tasks.names)
    from mtrl.distributed import Stream, joined, learn_on_ray

    # later stages find the cluster that was started for this one
    session.exits.enter_context(joined(runtime))
    stream = None
    if work.needs.stream:
        stream = Stream(work.collection, learner.snapshot("collect"), session.config.seed)
    evaluates = work.clock.evaluate_every > 0
    with progress(f"train {session.called(work.label)}", work.clock.budget) as bar:

        def look(found: Progress) -> bool:
            if found.steps > bar.done:
                bar.advance(found.steps - bar.done, **found.shown)
            return session.interrupt.requested

        learn_on_ray(
            partial(train_rank, work),
            session.tasks,
            runtime,
            place / "ray_train",
            stream=stream,
            evaluate=partial(evaluate_here, work) if evaluates else None,
            on_look=look,
            on_fault=session.show_fault,
        )
    newest = Checkpoints(place).latest()
    assert newest is not None, "learners end with a checkpoint"
    saved = require_format(newest[1])
    learner.restore(saved["shared"], None)
    run.load(saved)
    return run, run.complete


def evaluate_here(work: RankWork, snapshot: PolicySnapshot) -> EvaluationResult:
    """Evaluates in the process that calls this."""
    with contextlib.closing(_RankSession(work, actors=0)) as rank:
        return evaluate_while_learning(rank.session, work.label, snapshot)


def train_rank(work: RankWork, learner: Learner) -> None:
    """Trains as one of the ranks, from the newest checkpoint on."""
    from mtrl.training import learn

    reducer = learner.reducer
    with contextlib.closing(_RankSession(work, learner.actors)) as rank:
        session, place = rank.session, rank.session.run.training(work.label)
        session.set_threads()
        _, factory, _ = agent_of(work.config)
        parents = parents_of(work.config, session.tasks, work.needs.parents)
        agent = cast(
            Agent,
            factory.build(
                work.settings,
                session.tasks,
                work.config.seed,
                rank=reducer.rank,
                ranks=reducer.size,
                parents=parents,
            ),
        )
        own = place if reducer.rank == 0 else place / f"rank{reducer.rank}"
        own.mkdir(parents=True, exist_ok=True)
        tracker = Trackers(trackers_of(session, work.label, place, agent) if reducer.rank == 0 else [])
        staggers = work.needs.stream and work.collection.stagger
        try:
            run = RunRecorder(
                work.clock,
                tracker,
                ReportedCheckpoints(own, learner),
                session.tasks.names,
                skip_episodes_below=work.collection.copies if staggers else 0,
                sampler=sampler_for(work.config.sampling, tuple(session.tasks)),
                minutes=max(1e-9, (work.until - time.time()) / 60) if work.until else 0.0,
                stop=lambda: learner.stop,
                evaluator=learner.evaluations,
                on_progress=lambda run, metrics: learner.show(run.steps, _shown(run, metrics, session)),
                shared=Checkpoints(place),
                counted=learner.counted,
            )
            source = source_of(
                session,
                work.needs,
                lambda: demonstrations_of(session),
                partial(_stream, work, learner, agent, place, session.tasks.names),
            )
            learn(agent, source, run, reducer)
        finally:
            tracker.close()


class ReportedCheckpoints(Checkpoints):
    """The checkpoints of a rank, of which Ray Train learns too."""

    def __init__(self, place: Path, learner: Learner) -> None:
        """As of Checkpoints."""
        super().__init__(place)
        self._learner = learner

    def save(self, step: int, state: object) -> Path:
        """As of Checkpoints; every rank calls this."""
        place = super().save(step, state)
        self._learner.saved(step, place)
        return place


class _RankSession:
    """A session in a process that the command did not start itself."""

    def __init__(self, work: RankWork, actors: int) -> None:
        runtime = dataclasses.replace(work.config.runtime, learners=0, actors=actors)
        if not actors:
            runtime = dataclasses.replace(runtime, kind="local", address="")
        config = dataclasses.replace(work.config, runtime=runtime)
        console = Console(emoji=False, stderr=True)
        run = RunDirectory.open(work.run)
        self.session = Session(config, task_set_of(config), run, console, Interruptible())

    def close(self) -> None:
        self.session.close_rollouts()


def _stream(work: RankWork, learner: Learner, agent: Agent, place: Path, names: tuple[str, ...]) -> Source:
    """Fragments of this rank's actors, into a replay in files where the agent has one."""
    fragments, rank, ranks = learner.fragments, learner.reducer.rank, learner.reducer.size
    assert fragments is not None, "an agent that learns from a stream has one"

    def published(snapshot: PolicySnapshot, steps: int) -> Any:  # noqa: ANN401
        fragments.publish(snapshot)
        return fragments

    if not isinstance(agent, MapsReplay):
        return StreamSource(published, names, work.clock.warmup, work.first)
    replay = agent.map_replay(MappedStorage(replay_folder(place, rank, ranks)))
    return StoredStream(fragments, names, work.clock.warmup, work.first, replay=replay, counts=rank == 0)


def _shown(run: RunRecorder, metrics: Any, session: Session) -> dict[str, float | str]:  # noqa: ANN401
    loss = {"loss": metrics["loss"]} if "loss" in metrics else {}
    return {**loss, **run.statistics.recent(tuple(session.tasks))}
