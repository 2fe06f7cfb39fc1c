"""Starts: integers that name exact initial states.

The same task and start give a bit-equal first observation on every machine with the same package
versions. Training, validation and test starts are disjoint and unlimited, so that a policy is never
tested where it was trained; pairing two policies on equal starts is what makes them comparable, and
GRPO groups are episodes of one start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum

import numpy as np

from mtrl.errors import ConfigError


class Split(Enum):
    """The three disjoint families of starts."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def start_id(split: Split, index: int) -> int:
    """The `index`-th start of a split, 0 <= index < 2**61, so that files hold it: 3 * index + the split's
    number.
    """
    if not 0 <= index < 2**61:
        raise ConfigError(f"a start index is at least 0 and below 2**61; got {index}")
    return 3 * index + split.value


def split_of(start: int) -> Split:
    """The split that a start belongs to."""
    return Split(start % 3)


def start_seed(task_name: str, start: int) -> np.random.SeedSequence:
    """The entropy that a suite draws the initial state from; different for every (task, start)."""
    return np.random.SeedSequence([start, *task_name.encode()])


def start_generator(task_name: str, start: int) -> np.random.Generator:
    """The generator that a suite draws the initial state from, seeded by `start_seed`."""
    return np.random.default_rng(start_seed(task_name, start))


class StartSchedule(ABC):
    """Schedule of the starts of each copy of one lane; deterministic."""

    def __init__(self, copies: int) -> None:
        self._used = [0] * copies

    @abstractmethod
    def next_start(self, copy: int) -> int | None:
        """Start of the next episode of this copy, or None when the copy has no episode left."""

    def state_dict(self) -> dict[str, list[int]]:
        """Episodes begun per copy."""
        return {"used": list(self._used)}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restores what `state_dict` returned."""
        self._used = list(state["used"])


class TrainingStarts(StartSchedule):
    """Unlimited training starts; no two copies of a task ever share one."""

    def __init__(self, copies: int, first_copy: int = 0, total_copies: int = 0, seed: int = 0) -> None:
        """`copies` of this lane; `first_copy` is the index of the first among the `total_copies` of the task
        in the run (0: this lane's alone). Different seeds train on different starts.
        """
        super().__init__(copies)
        self.copies, self.first_copy, self.seed = copies, first_copy, seed
        self.total_copies = total_copies or copies
        if first_copy + copies > self.total_copies:
            raise ConfigError(
                f"copies {first_copy} to {first_copy + copies - 1} do not fit into "
                f"total_copies={self.total_copies}; they would share starts with other lanes"
            )

    def next_start(self, copy: int) -> int:
        """Starts copy, copy + total, copy + 2 total ... of the training split, shifted by the seed."""
        index = self._used[copy] * self.total_copies + self.first_copy + copy
        self._used[copy] += 1
        return start_id(Split.TRAIN, index + 1_000_003 * self.seed)


class FixedStarts(StartSchedule):
    """A given list of starts per copy; after the last one the copy is inactive. Used to evaluate."""

    def __init__(self, queues: Sequence[Sequence[int]]) -> None:
        """One list of starts per copy."""
        super().__init__(len(queues))
        self.queues = queues

    def next_start(self, copy: int) -> int | None:
        """The next listed start of the copy, None after the last."""
        position = self._used[copy]
        if position >= len(self.queues[copy]):
            return None
        self._used[copy] += 1
        return self.queues[copy][position]
