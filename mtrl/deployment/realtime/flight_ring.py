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
    """A view of rows over flat memory, of which the first `count` are filled."""

    def __init__(self, memory: Float64, state_size: int, action_size: int) -> None:
        """`memory`: flat, at least one row; `state_size` D and `action_size` A are one task's own."""
        self.state_size = state_size
        self.action_size = action_size
        width = row_width(state_size, action_size)
        self.capacity = len(memory) // width
        self.count = 0
        rows = memory[: self.capacity * width].reshape(self.capacity, width)
        ends = np.cumsum([len(Column), state_size, action_size])
        self.numbers, self.observation, self.proposal, self.command = np.split(rows, ends, axis=1)
        """Views of the memory: [capacity, 10], [capacity, D], [capacity, A] and [capacity, A]."""

    def append(
        self, numbers: tuple[float, ...], observation: Float64, proposal: Float64, command: Float64
    ) -> bool:
        """Adds one row; `numbers` are the leading columns in order. False when the ring is full."""
        if self.count >= self.capacity:
            return False
        self.numbers[self.count] = numbers
        self.observation[self.count] = observation
        self.proposal[self.count] = proposal
        self.command[self.count] = command
        self.count += 1
        return True


def row_width(state_size: int, action_size: int) -> int:
    """Words of one row."""
    return len(Column) + state_size + 2 * action_size
