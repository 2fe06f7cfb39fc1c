"""Where a run's metrics go."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtrl.structured import plain
from mtrl.training import (
    CosineTracker,
    JsonlTracker,
    MeasuresConflict,
    TensorBoardTracker,
    Tracker,
    WandbTracker,
)

from .session import Session


def trackers_of(session: Session, label: str, place: Path, learner: object = None) -> list[Tracker]:
    """The files that every run has, what the configuration adds, and the cosines of a learner that measures
    them.
    """
    tracking, run = session.config.tracking, session.run.path.name
    trackers: list[Tracker] = [JsonlTracker(place)]
    if isinstance(learner, MeasuresConflict):
        trackers.append(CosineTracker(place, learner, session.tasks.names))
    if tracking.tensorboard:
        trackers.append(TensorBoardTracker(place))
    if tracking.wandb.effective_mode != "disabled":
        grouped = dataclasses.replace(tracking.wandb, group=tracking.wandb.group or run)
        trackers.append(
            WandbTracker(place, grouped, run_name=f"{run}/{label}", settings=plain(session.config))
        )
    return trackers
