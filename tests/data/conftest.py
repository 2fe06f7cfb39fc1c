"""Tasks whose transitions can be checked by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtrl.tasks import TaskSet

from ..synthetic import counter_suite, counter_task


@pytest.fixture
def tasks() -> Iterator[TaskSet]:
    """Two continuous tasks that count, one of them terminating, and a discrete one of frames."""
    with counter_suite():
        yield TaskSet(
            [
                counter_task("counter/short", horizon=5),
                counter_task("counter/long", horizon=9, terminate_at=3),
                counter_task("counter/frames", horizon=4),
            ]
        )
