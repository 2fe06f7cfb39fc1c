"""Which of several ways to the same numbers is the fastest here, found by trying them in turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mtrl.errors import ConfigError


class MeasuredChoice:
    """Takes turns between ways for a few rounds, then stays with the fastest.

    The ways differ in rounding, so what was taken at every step is part of a run: the choice is saved with
    it, and a resumed run, or one that names its choice, goes the same way.
    """

    def __init__(self, ways: Sequence[str], rounds: int = 5, chosen: str = "") -> None:
        """`rounds` of measurement per way, after one that warms up; `chosen` skips the measurement."""
        if chosen and chosen not in ways:
            raise ConfigError(f"way {chosen!r}; expected one of {', '.join(ways)}")
        self.ways = tuple(ways)
        self.rounds = rounds
        self.chosen = chosen or (self.ways[0] if len(self.ways) == 1 else "")
        self.seconds: dict[str, list[float]] = {way: [] for way in self.ways}

    def next(self) -> str:
        """The way to take now."""
        if self.chosen:
            return self.chosen
        return min(self.ways, key=lambda way: len(self.seconds[way]))

    def record(self, way: str, seconds: float) -> None:
        """How long it took; decides once every way has had its rounds."""
        if self.chosen:
            return
        self.seconds[way].append(seconds)
        if all(len(values) > self.rounds for values in self.seconds.values()):
            self.chosen = min(self.ways, key=lambda name: statistics.median(self.seconds[name][1:]))

    def state_dict(self) -> dict[str, Any]:
        """The choice and how many rounds each way has had."""
        return {"chosen": self.chosen, "seconds": {way: list(values) for way, values in self.seconds.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.chosen = state["chosen"]
        self.seconds = {way: list(state["seconds"][way]) for way in self.ways}
