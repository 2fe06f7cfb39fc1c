"""Rollouts on Ray: actors, versioned weights, continuous collection; the only room that imports Ray.

Importing this package does not import Ray. `rollouts_for` and `fragments_for` choose by the
configuration, and only `runtime.kind=ray` loads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtrl.rollout import (
    CollectionConfig,
    FaultHandler,
    Fragments,
    LocalFragments,
    LocalRollouts,
    PolicySnapshot,
    Rollouts,
    RuntimeConfig,
)
from mtrl.tasks import TaskSet

from .balance import balance
from .resources import ResourcePlan, preflight, preflight_lanes, processors, thread_budget

__all__ = [
    "ResourcePlan",
    "balance",
    "fragments_for",
    "preflight",
    "preflight_lanes",
    "processors",
    "rollouts_for",
    "thread_budget",
]


def rollouts_for(tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> Rollouts:
    """Whole episodes in this process or on Ray, as `config.kind` says; both give equal results.

    Raises ResourceError before any work when the machine or cluster is too small.
    """
    if config.kind == "local":
        return LocalRollouts(tasks, config, on_fault)
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
    """Continuous collection in this process or on Ray; `step_seconds` [K] balances lanes over actors."""
    if config.kind == "local":
        return LocalFragments(tasks, config, collection, snapshot, seed, on_fault)
    from .fragments import RayFragments

    return RayFragments(tasks, config, collection, snapshot, seed, on_fault, step_seconds)
