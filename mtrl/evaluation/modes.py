"""Which of its several ways a policy took through a multimodal task."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtrl import registry
from mtrl.rollout import JobResult
from mtrl.tasks import MultimodalSuite, TaskSet


def modes_of(tasks: TaskSet, result: JobResult) -> dict[str, Any]:
    """Which way each successful episode took, and every path for a picture."""
    task = tasks[result.job.task_index]
    suite = registry.suite(task.suite)
    assert isinstance(suite, MultimodalSuite) and result.episodes is not None
    offsets = result.episodes.offsets
    states = result.episodes.observations["state"].astype(np.float32, copy=False)
    counts = dict.fromkeys(suite.modes(task), 0)
    paths = []
    for e, summary in enumerate(result.summaries):
        episode = states[offsets[e] + e : offsets[e + 1] + e + 1]
        paths.append([[round(float(v), 4) for v in point] for point in suite.plan_view(task, episode)])
        if summary.success_any:
            counts[suite.mode(task, episode)] += 1
    x, y, radius = suite.obstacle(task)
    return {"successes": counts, "paths": paths, "obstacle": {"x": x, "y": y, "radius": radius}}
