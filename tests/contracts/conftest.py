"""One Meta-World, one DeepMind Control and one Atari task in one set, with short episodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mtrl import registry
from mtrl.rollout import LaneAssignment, RolloutWorker
from mtrl.tasks import TaskSet

from ..walk import walking_policy

NAMES = ("metaworld/reach-v3", "dmc/cartpole-swingup", "atari/Boxing")
HORIZON = 6
COPIES = 2


@pytest.fixture(scope="session")
def mixed() -> TaskSet:
    """The three tasks, truncated after `HORIZON` decisions."""
    return TaskSet([replace(registry.task(name), horizon_decisions=HORIZON) for name in NAMES])


@pytest.fixture(scope="session")
def worker(mixed: TaskSet) -> Iterator[RolloutWorker]:
    """Plays jobs and hosts one lane of `COPIES` copies of each task."""
    hosted = RolloutWorker(mixed)
    with walking_policy():
        yield hosted
    hosted.close()


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def task_index(request: pytest.FixtureRequest) -> int:
    """Each task in turn."""
    index: int = request.param
    return index


@pytest.fixture
def lane(task_index: int) -> LaneAssignment:
    """All copies of the task in one lane."""
    return LaneAssignment(task_index, COPIES, 0, COPIES)
