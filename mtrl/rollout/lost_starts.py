"""Starts whose episodes ended with a lane: of a lost process or node, or of a run that went on elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtrl.atomic import write_text

from .fragment import Fragment

LISTED = 10_000
"""Lost starts that are kept by name, the newest; all of them are counted."""


class LostStart(NamedTuple):
    """An episode that was begun, whose first decisions may have been learned from, and that never ends."""

    task_index: int
    copy: int
    """Index among all copies of the task."""
    episode: int
    """As in `Fragment.episode_id`."""
    start: int
    """As in `Fragment.start_id`."""


class OpenEpisodes:
    """The episode that every copy is in, as the fragments of one rank show it."""

    def __init__(self) -> None:
        """No lane has been seen."""
        self._copies: dict[tuple[int, int], tuple[int, int]] = {}
        """Task and copy -> episode and start of what its last fragment ends with."""

    def add(self, fragment: Fragment) -> list[LostStart]:
        """The episodes that end here without an end: those of copies whose lane is opened again. A first
        fragment that comes twice opens nothing.
        """
        task, lost = fragment.task_index, []
        for column in range(fragment.reward.shape[1]):
            copy = fragment.first_copy + column
            now = int(fragment.episode_id[-1, column]), int(fragment.start_id[-1, column])
            before = self._copies.get((task, copy), now)
            if fragment.first_step == 0 and before != now:
                lost.append(LostStart(task, copy, *before))
            self._copies[task, copy] = now
        return lost

    def state_dict(self) -> list[list[int]]:
        """Task, copy, episode and start of every copy."""
        return [[*copy, *episode] for copy, episode in self._copies.items()]

    def load_state_dict(self, state: Sequence[Sequence[int]]) -> None:
        """Restores `state_dict`."""
        self._copies = {(row[0], row[1]): (row[2], row[3]) for row in state}


class LostStarts:
    """All that were lost in a run, on every rank, and the file that lists them."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names` of the tasks by index."""
        self.count = 0
        self._names, self._listed, self._changed = tuple(names), list[dict[str, Any]](), False

    def add(self, lost: Sequence[LostStart], step: int) -> None:
        """Lost starts that became known at an environment step of the run."""
        self.count += len(lost)
        self._changed |= bool(lost)
        self._listed += [
            {"task": self._names[one.task_index], **one._asdict(), "noticed_at_step": step} for one in lost
        ]
        del self._listed[:-LISTED]

    def write(self, directory: Path) -> None:
        """`lost_starts.json`, where there is anything new."""
        if self._changed:
            content = {"count": self.count, "starts": self._listed}
            write_text(directory / "lost_starts.json", json.dumps(content, indent=1) + "\n", overwrite=True)
        self._changed = False

    def state_dict(self) -> dict[str, Any]:
        """All of them."""
        return {"count": self.count, "listed": list(self._listed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.count, self._listed = int(state.get("count", 0)), [dict(one) for one in state.get("listed", ())]
