"""Rollouts on Ray: actors, versioned weights, continuous collection; the only room that imports Ray.

Importing this package does not import Ray. `rollouts_for` and `fragments_for` choose by the
configuration, and only `runtime.kind=ray` loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtrl.rollout import (
    CollectionConfig,
    FaultHandler,
    Fragments,
    LaneAssignment,
    LocalFragments,
    LocalRollouts,
    PolicySnapshot,
    Rollouts,
    RuntimeConfig,
    WorkerFragments,
    WorkerRollouts,
)
from mtrl.tasks import TaskSet

from .resources import ResourcePlan, preflight, preflight_lanes, processors, thread_budget

__all__ = [
    "ResourcePlan",
    "fragments_for",
    "preflight",
    "preflight_lanes",
    "processors",
    "rollouts_for",
    "thread_budget",
]


def rollouts_for(tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> Rollouts:
    """Whole episodes in this process, in worker processes, or on Ray; all give equal results.

    Raises ResourceError before any work when the machine or cluster is too small.
    """
    if config.kind == "local" and not config.workers:
        return LocalRollouts(tasks, config, on_fault)
    if config.kind == "local":
        preflight(tasks, replace(config, actors=config.workers, address=""))
        return WorkerRollouts(tasks, config, on_fault)
    from .rollouts import RayRollouts

    return RayRollouts(tasks, config, on_fault)


def fragments_for(
    tasks: TaskSet,
    config: RuntimeConfig,
    collection: CollectionConfig,
    snapshot: PolicySnapshot,
    seed: int,
    on_fault: FaultHandler | None = None,
    step_seconds: Sequence[float] | None = None,
) -> Fragments:
    """Continuous collection in this process, in worker processes, or on Ray.

    `step_seconds` [K], a decision's cost per copy, balances the lanes; measured where it is not given.
    """
    if config.kind == "local" and not config.workers:
        return LocalFragments(tasks, config, collection, snapshot, seed, on_fault)
    if config.kind == "local":
        shares = [LaneAssignment(k, collection.copies, 0, collection.copies) for k in range(len(tasks))]
        torch = snapshot.kind not in ("expert", "random")
        preflight_lanes(tasks, replace(config, actors=config.workers, address=""), shares, torch=torch)
        return WorkerFragments(tasks, config, collection, snapshot, seed, on_fault, step_seconds)
    from .fragments import RayFragments

    return RayFragments(tasks, config, collection, snapshot, seed, on_fault, step_seconds)
