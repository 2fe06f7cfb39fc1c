"""Starts: integers that name exact initial states.

The same task and start give a bit-equal first observation on every machine with the same package
versions. Training, validation and test starts are disjoint and unlimited, so that a policy is never
tested where it was trained; pairing two policies on equal starts is what makes them comparable, and
GRPO groups are episodes of one start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mtrl.errors import ConfigError


class Split(Enum):
    """The three disjoint families of starts."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def start_id(split: Split, index: int) -> int:
    """The `index`-th start of a split, index >= 0: 3 * index + the split's number."""
    if index < 0:
        raise ConfigError(f"a start index is at least 0; got {index}")
    return 3 * index + split.value


def split_of(start: int) -> Split:
    """The split that a start belongs to."""
    return Split(start % 3)


def start_seed(task_name: str, start: int) -> np.random.SeedSequence:
    """The entropy that a suite draws the initial state from; different for every (task, start)."""
    return np.random.SeedSequence([start, *task_name.encode()])


class StartSchedule:
    """Says which start a lane's copy begins next. Deterministic; owned by one lane."""

    def next_start(self, copy: int) -> int | None:
        """Start of the next episode of this copy, or None when the copy has no episode left."""
        raise NotImplementedError("next_start(copy: int) -> int | None")

    def state_dict(self) -> dict[str, list[int]]:
        """Where every copy stands."""
        raise NotImplementedError("state_dict() -> dict[str, list[int]]")

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restores what `state_dict` returned."""
        raise NotImplementedError("load_state_dict(state)")


@dataclass
class TrainingStarts(StartSchedule):
    """Unlimited training starts; no two copies of a task ever share one."""

    copies: int
    """Copies in this lane."""
    first_copy: int = 0
    """Index of this lane's first copy among all copies of the task in the run."""
    total_copies: int = 0
    """Copies of the task in the whole run; 0 means just this lane's."""
    seed: int = 0
    """Offsets the sequence, so that different seeds train on different starts."""

    def __post_init__(self) -> None:
        self.total_copies = self.total_copies or self.copies
        if self.first_copy + self.copies > self.total_copies:
            raise ConfigError(
                f"copies {self.first_copy} to {self.first_copy + self.copies - 1} do not fit into "
                f"total_copies={self.total_copies}; they would share starts with other lanes"
            )
        self._used = [0] * self.copies

    def next_start(self, copy: int) -> int:
        """Starts copy, copy + total, copy + 2 total ... of the training split, shifted by the seed."""
        index = self._used[copy] * self.total_copies + self.first_copy + copy
        self._used[copy] += 1
        return start_id(Split.TRAIN, index + 1_000_003 * self.seed)

    def state_dict(self) -> dict[str, list[int]]:
        """Episodes begun per copy."""
        return {"used": list(self._used)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restores episodes begun per copy."""
        self._used = list(state["used"])


@dataclass
class FixedStarts(StartSchedule):
    """A given list of starts, one after another per copy; then the copy rests. Used to evaluate."""

    queues: Sequence[Sequence[int]]
    """One list of starts per copy."""

    def __post_init__(self) -> None:
        self._used = [0] * len(self.queues)

    def next_start(self, copy: int) -> int | None:
        """The next listed start of the copy, None after the last."""
        position = self._used[copy]
        if position >= len(self.queues[copy]):
            return None
        self._used[copy] += 1
        return self.queues[copy][position]

    def state_dict(self) -> dict[str, list[int]]:
        """Episodes begun per copy."""
        return {"used": list(self._used)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restores episodes begun per copy."""
        self._used = list(state["used"])
