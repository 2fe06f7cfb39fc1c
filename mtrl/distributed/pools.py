"""Collection and whole episodes in this process, by worker processes, or by Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mtrl.rollout import (
    Backend,
    CollectionConfig,
    Delivery,
    FaultHandler,
    Fragments,
    LocalFragments,
    LocalRollouts,
    PolicySnapshot,
    PoolFragments,
    PoolRollouts,
    Processes,
    Rollouts,
    RuntimeConfig,
    require_backends,
)
from mtrl.tasks import TaskSet

from . import resources
from .resources import ResourcePlan, preflight

Plan = Callable[..., ResourcePlan]


def rollouts_for(tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> Rollouts:
    """Whole episodes in this process, or by a pool of worker processes or Ray actors; all give equal results.

    Raises ResourceError before any work when the machine or cluster is too small.
    """
    if config.kind == "local" and not config.workers:
        return LocalRollouts(tasks, config, on_fault)
    backend, plan = _started(tasks, config)

    def cache_plan(copies: int, torch: bool) -> float:
        return plan(copies=copies, torch=torch).cache_megabytes

    return PoolRollouts(tasks, backend, config, on_fault, cache_plan=cache_plan)


def fragments_for(
    tasks: TaskSet,
    config: RuntimeConfig,
    collection: CollectionConfig,
    snapshot: PolicySnapshot,
    seed: int,
    on_fault: FaultHandler | None = None,
    step_seconds: Sequence[float] | None = None,
    *,
    delivery: Delivery | None = None,
) -> Fragments:
    """Continuous collection in this process, or by a pool of worker processes or Ray actors.

    `step_seconds` [K], a decision's cost per copy, balances the lanes; measured unless given.
    `delivery` is in rounds on worker processes and by arrival on Ray unless given.

    Raises as `require_backends`, before anything starts.
    """
    require_backends(tasks, config.backends)
    if config.kind == "local" and not config.workers:
        return LocalFragments(tasks, config, collection, snapshot, seed, on_fault)
    torch = snapshot.needs_torch
    backend, _ = _started(tasks, config, copies=collection.copies, held=True, torch=torch)
    delivery = delivery or ("rounds" if config.kind == "local" else "arrival")
    return PoolFragments(
        tasks, backend, config, collection, snapshot, seed, on_fault, step_seconds, delivery=delivery
    )


def require_processors(tasks: TaskSet, config: RuntimeConfig) -> None:
    """Raises before anything is created where the machine, or the cluster at `config.address`, has fewer
    processors than the run has actors or worker processes, or where no cluster answers there.
    """
    if config.kind == "local":
        config = replace(config, actors=config.workers)
    if config.kind == "ray" and config.address:
        from . import cluster

        has = cluster.connect(config).processors
        cluster.disconnect()
        preflight(tasks, config, processor_count=has, available_megabytes=float("inf"))
    elif config.actors:
        preflight(tasks, config, available_megabytes=float("inf"))


def _started(tasks: TaskSet, config: RuntimeConfig, **asked: Any) -> tuple[Backend, Plan]:  # noqa: ANN401
    """A back end whose workers are starting, once `preflight` has found processors and memory for `asked`;
    and `preflight` with the memory that was free before they started.
    """
    backend: Backend
    if config.kind == "local":
        config = replace(config, actors=config.workers, address="")
        plan = partial(preflight, tasks, config, available_megabytes=resources.memory_megabytes())
        backend = Processes(tasks, config)
    else:
        if not config.address:
            preflight(tasks, config)
        from .ray_actors import RayActors

        backend = RayActors(tasks, config)
        has = backend.capacity
        free = resources.memory_megabytes() if has.megabytes is None else has.megabytes
        # learners have not begun or have ended, and leave all to the actors that were asked for
        count = has.total if config.actors else has.processors
        plan = partial(preflight, tasks, config, processor_count=count, available_megabytes=free)
    try:
        backend.start(plan(**asked).actors)
    except BaseException:
        backend.close()
        raise
    return backend, plan
