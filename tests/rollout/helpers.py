"""Lanes and jobs over the counting suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, StartSchedule, Task, TaskSet

from ..synthetic import CounterSuite, counter_task

LAYOUT = TaskSet([counter_task("counter/short"), counter_task("counter/long")]).layout
"""D_max = 5 and A_max = 4, so that the short task is padded by two in both."""


def lane_of(
    schedule: StartSchedule | Sequence[Sequence[int]],
    copies: int | None = None,
    task: Task | None = None,
    **settings: object,
) -> PythonLane:
    """A lane of the short task, not begun."""
    if not isinstance(schedule, StartSchedule):
        copies, schedule = len(schedule), FixedStarts(schedule)
    assert copies is not None
    task, suite = task or counter_task(), CounterSuite()
    environments = [suite.environment(task) for _ in range(copies)]
    return PythonLane(task, 0, LAYOUT, environments, schedule, **settings)  # type: ignore[arg-type]


def actions(lane: PythonLane, value: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Every padded action entry equal to `value`; the counter sees the first two."""
    return np.full((lane.copies, 4), value, dtype=np.float32), np.zeros(lane.copies, dtype=np.int64)
