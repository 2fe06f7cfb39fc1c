"""Episodes that a fault of their environment ended: listed, and counted for no policy and against none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtrl.reading import Json
from mtrl.tasks import Score


@dataclass(frozen=True)
class BrokenEpisode:
    """An episode that was not played to its end."""

    task: str
    start: int
    cause: str
    """The phase and the fault, in one line."""


@dataclass(frozen=True)
class UnmeasuredTask:
    """A task of which every episode broke: it has no figures, and no mean holds it."""

    name: str
    protocol_hash: str
    score: Score
    protocol: Mapping[str, Json] | None = None
    """The fields behind `protocol_hash`; None in files without them."""
