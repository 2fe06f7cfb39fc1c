"""Training a baseline, which owns its loop."""

from __future__ import annotations

from pathlib import Path

from mtrl.training import Baseline, Checkpoints, EpisodeBooks, Trackers, progress, train_baseline

from .ceiling import Ceiling
from .online import judge
from .session import Interrupted, Session
from .tracking import trackers_of

PROMISE = "stopping after this step or round of updates and saving a checkpoint"
"""What Ctrl-C is answered while a baseline trains."""


def learn_baseline(session: Session, label: str, baseline: Baseline, place: Path) -> bool:
    """Trains with trackers, checkpoints and a bar; False when the ceiling on minutes ended it. Raises
    Interrupted when it was stopped.
    """
    config = session.config
    place.mkdir(parents=True, exist_ok=True)
    tracker, ceiling = Trackers(trackers_of(session, label, place)), Ceiling(session, place)
    done = 0
    try:
        with (
            session.interrupt.promising(PROMISE),
            progress(f"train {label}", config.online.steps) as bar,
            ceiling.measured(),
        ):

            def advance(step: int, books: EpisodeBooks) -> None:
                nonlocal done
                bar.advance(step - done, **books.recent(tuple(session.tasks)))
                done = step

            finished = train_baseline(
                baseline,
                config.online,
                tracker,
                Checkpoints(place),
                session.tasks.names,
                minutes=ceiling.left,
                stop=lambda: session.interrupt.requested,
                evaluate=lambda step, snapshot: judge(session, label, snapshot),
                on_step=advance,
            )
    finally:
        tracker.close()
    reached = f"{baseline.steps:,} of {config.online.steps:,} steps"
    if not finished and session.interrupt.requested:
        raise Interrupted(f"{label} stopped after {reached}")
    if not finished:
        ceiling.reached(session, f"{label}, {reached}")
    else:
        session.console.print(f"{label}: {baseline.steps:,} steps", highlight=False)
    return finished
