"""Training an agent that collects while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from mtrl.distributed import fragments_for
from mtrl.evaluation import PolicyReference, Provenance, evaluate
from mtrl.rollout import Fragments, PolicySnapshot
from mtrl.tasks import sampler_for
from mtrl.training import (
    Agent,
    Checkpoints,
    EpisodeBooks,
    Metric,
    Metrics,
    OnlineAgent,
    Trackers,
    progress,
    train_online,
)

from .ceiling import Ceiling
from .session import Interrupted, Session
from .tracking import trackers_of

RESUMED_SEED = 7_000_003
"""Added to the seed of lanes that a resumed run opens afresh, so that they do not repeat their episodes."""


EVALUATION_METRICS: Metrics = {
    "evaluation_return/{task}": Metric(
        "mean return on the configured starts without exploration, every online.evaluate_every steps",
        "reward",
        "mtrl.launch.online:judge",
    ),
    "evaluation_success/{task}": Metric(
        "share of those episodes in which the success signal was ever on", "1", "mtrl.launch.online:judge"
    ),
}
"""What evaluating while learning adds to metrics.jsonl."""


def learn_online(session: Session, label: str, learner: Agent, place: Path) -> bool:
    """Collects and learns with trackers, checkpoints and a bar; False when the ceiling on minutes ended it.
    Raises Interrupted when it was stopped.
    """
    agent = cast(OnlineAgent, learner)
    config, tasks = session.config, session.tasks
    if agent.needs.demonstrations:
        from .learn import demonstrations_of

        agent.ingest(demonstrations_of(session))
    place.mkdir(parents=True, exist_ok=True)
    reached = 0

    def open_fragments(snapshot: PolicySnapshot, steps: int) -> Fragments:
        seed = config.seed + (RESUMED_SEED if steps else 0)
        return fragments_for(tasks, config.runtime, config.collection, snapshot, seed, session.show_fault)

    tracker, ceiling = Trackers(trackers_of(session, label, place, agent)), Ceiling(session, place)
    try:
        with progress(f"train {label}", config.online.steps) as bar, ceiling.measured():

            def advance(step: int, books: EpisodeBooks) -> None:
                nonlocal reached
                reached = step
                bar.advance(step - bar.done, updates=agent.updates, **books.recent(tuple(tasks)))

            finished = train_online(
                agent,
                open_fragments,
                config.online,
                tracker,
                Checkpoints(place),
                tasks.names,
                skip_episodes_below=config.collection.copies if config.collection.stagger else 0,
                sampler=sampler_for(config.sampling, tuple(tasks)),
                minutes=ceiling.left,
                stop=lambda: session.interrupt.requested,
                evaluate=lambda step, snapshot: judge(session, label, snapshot),
                on_fragment=advance,
            )
    finally:
        tracker.close()
    if not finished and session.interrupt.requested:
        raise Interrupted(
            f"{label} stopped before {config.online.steps:,} steps, at {agent.updates:,} updates"
        )
    if not finished:
        ceiling.reached(
            session, f"{label}, {reached:,} of {config.online.steps:,} steps, {agent.updates:,} updates"
        )
    else:
        session.console.print(
            f"{label}: {config.online.steps:,} steps, {agent.updates:,} updates", highlight=False
        )
    if not agent.updates:
        session.console.print(
            f"[yellow]{label} learned nothing: no task came to a batch of transitions after "
            f"online.warmup={config.online.warmup}; raise steps, or lower agent.batch_size or "
            "online.warmup[/yellow]",
            highlight=False,
        )
    return finished


def judge(session: Session, label: str, snapshot: PolicySnapshot) -> dict[str, float]:
    """Mean return and success of every task on the configured starts."""
    result = evaluate(
        session.rollouts,
        session.tasks,
        snapshot,
        session.config.evaluation,
        PolicyReference(label=label, kind=label, identity="", version=snapshot.version),
        Provenance.collect(),
    )
    found: dict[str, float] = {}
    for name in session.tasks.names:
        episodes = [episode for episode in result.episodes if episode.task == name]
        found[f"evaluation_return/{name}"] = sum(e.episode_return for e in episodes) / len(episodes)
        found[f"evaluation_success/{name}"] = sum(e.success_any for e in episodes) / len(episodes)
    return found
