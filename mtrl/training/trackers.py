"""The tracker contract, and a fan-out in which a failing tracker never stops training.

Two streams. `log` takes deterministic values only, so that equal runs have equal files; whatever a
clock measured goes to `timing`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from mtrl.errors import ConfigError, MtrlWarning, TakenOverError


class Tracker(Protocol):
    """Records scalars of a run. Steps ascend; a step may be logged more than once."""

    name: str
    """Key of this tracker's state in a checkpoint; unique among a run's trackers."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records deterministic values at a step."""

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Records wall-clock measurements at a step, in seconds or per second."""

    def close(self) -> None:
        """Writes out what is held back and frees everything. Nothing is logged afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Position of the record; everything before this call is on disk when it returns."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Drops what was recorded after `state_dict` returned `state`; all of it for an empty state."""


class Trackers:
    """Passes everything on to several trackers.

    A tracker that raises during the run is warned about once and is still called; how many
    of its records were lost is said when it is closed.
    """

    name = "trackers"

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Raises ConfigError when two trackers have one name."""
        names = [tracker.name for tracker in trackers]
        if len(set(names)) != len(names):
            raise ConfigError(f"trackers need different names; got {', '.join(names)}")
        self._trackers = tuple(trackers)
        self._lost = dict.fromkeys(names, 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records deterministic values with every tracker."""
        for tracker in self._trackers:
            self._guard(tracker, partial(tracker.log, step, metrics))

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Records wall-clock measurements with every tracker."""
        for tracker in self._trackers:
            self._guard(tracker, partial(tracker.timing, step, values))

    def close(self) -> None:
        """Closes every tracker and warns of what was lost."""
        for tracker in self._trackers:
            self._guard(tracker, tracker.close)
            if self._lost[tracker.name] > 1:
                _warn(
                    f"tracker {tracker.name!r} failed {self._lost[tracker.name]} times; its record has gaps"
                )

    def state_dict(self) -> dict[str, Any]:
        """Tracker name -> its state; None for one that could not return it."""
        states: dict[str, Any] = dict.fromkeys(self._lost)

        def ask(tracker: Tracker) -> None:
            states[tracker.name] = tracker.state_dict()

        for tracker in self._trackers:
            self._guard(tracker, partial(ask, tracker))
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores every tracker before the run goes on; errors are raised, since no work is lost yet.

        A tracker that the state lacks, or that failed to give its own, is left as it is. An empty state
        takes all of them back to the beginning.
        """
        for tracker in self._trackers:
            own = state.get(tracker.name) if state else {}
            if own is not None:
                tracker.load_state_dict(own)

    def _guard(self, tracker: Tracker, call: Callable[[], None]) -> None:
        try:
            call()
        except TakenOverError:
            # the run is another process's now
            raise
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, hours of training go on
            self._lost[tracker.name] += 1
            if self._lost[tracker.name] == 1:
                _warn(
                    f"tracker {tracker.name!r} failed and training goes on without this record "
                    f"({type(error).__name__}: {error}); later failures are only counted"
                )


def _warn(message: str) -> None:
    warnings.warn(message, MtrlWarning, stacklevel=3)
