"""The flight recorder's memory: one preallocated row per tick, shared with the session.

The policy process writes rows and never touches a file; the session turns them into a log after the
episode. Because the memory is shared, the rows survive the death of the process that wrote them.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class Column(IntEnum):
    """Leading columns of a row; observation [D], proposed action [A] and command [A] follow."""

    TICK = 0
    """Tick of the observation that was answered."""
    SCHEDULED = 1
    """When the robot's tick was due; all times in seconds of time.monotonic."""
    OBSERVED = 2
    """When the robot published the observation."""
    READ = 3
    """When the policy read it: the guard's "now"."""
    INFERRED = 4
    """When the proposal was ready."""
    SENT = 5
    """When the command was in shared memory."""
    INFERENCE_S = 6
    """Time that inference took, in seconds; 0 when the action comes from an earlier chunk."""
    PLANNED = 7
    """1 when this tick planned a chunk."""
    FLAGS = 8
    """Bits of GuardFlag."""
    STATE = 9
    """GuardState after the tick."""


class FlightRing:
    """A view of rows over flat memory; when full, further ticks are refused by `append`."""

    def __init__(self, memory: Float64, state_size: int, action_size: int) -> None:
        """`memory`: flat, at least one row; `state_size` D and `action_size` A are one task's own."""
        self.state_size = state_size
        self.action_size = action_size
        width = row_width(state_size, action_size)
        self.capacity = len(memory) // width
        self.rows = memory[: self.capacity * width].reshape(self.capacity, width)
        self.count = 0
        first = len(Column)
        self._observation = slice(first, first + state_size)
        self._proposal = slice(first + state_size, first + state_size + action_size)
        self._command = slice(first + state_size + action_size, width)

    def append(
        self, numbers: tuple[float, ...], observation: Float64, proposal: Float64, command: Float64
    ) -> bool:
        """Adds one row; `numbers` are the leading columns in order. False when there is no room."""
        if self.count >= self.capacity:
            return False
        row = self.rows[self.count]
        row[: len(Column)] = numbers
        row[self._observation] = observation
        row[self._proposal] = proposal
        row[self._command] = command
        self.count += 1
        return True

    def observation(self, count: int) -> Float64:
        """Observations of the first `count` rows, [count, D]."""
        return self.rows[:count, self._observation]

    def proposal(self, count: int) -> Float64:
        """Proposed actions, [count, A]."""
        return self.rows[:count, self._proposal]

    def command(self, count: int) -> Float64:
        """Commands, [count, A]."""
        return self.rows[:count, self._command]


def row_width(state_size: int, action_size: int) -> int:
    """Words of one row."""
    return len(Column) + state_size + 2 * action_size
