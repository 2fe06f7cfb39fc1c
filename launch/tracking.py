"""Where a run's metrics go."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtrl.structured import plain
from mtrl.training import JsonlTracker, TensorBoardTracker, Tracker, WandbTracker

from .session import Session


def trackers_of(session: Session, label: str, place: Path) -> list[Tracker]:
    """The files that every run has, and what the configuration adds."""
    tracking, run = session.config.tracking, session.run.path.name
    trackers: list[Tracker] = [JsonlTracker(place)]
    if tracking.tensorboard:
        trackers.append(TensorBoardTracker(place))
    if tracking.wandb.effective_mode != "disabled":
        grouped = dataclasses.replace(tracking.wandb, group=tracking.wandb.group or run)
        trackers.append(
            WandbTracker(place, grouped, run_name=f"{run}/{label}", settings=plain(session.config))
        )
    return trackers
