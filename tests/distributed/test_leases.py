"""Actors that stand still: their lanes go on elsewhere, and nothing of theirs comes twice."""

from __future__ import annotations

import os
import signal
import time
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.ray_faults.ledger import Ledger, lane_of
from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.distributed.ray_actors import RayActors
from mtrl.rollout import CollectionConfig, PolicySnapshot, PoolFragments, RuntimeConfig

from .test_clusters import alive

PATIENCE_SECONDS = 120.0


@pytest.mark.usefixtures("ray_cluster")
def test_a_frozen_actor_loses_its_lanes_and_ends_when_it_wakes(marks: Path) -> None:
    tasks = registry.task_set(["trial/walk", "trial/reach"])
    source = fragments_for(
        tasks, RuntimeConfig(kind="ray", actors=2), CollectionConfig(copies=2, steps=5),
        PolicySnapshot("random"), 7, step_seconds=[1.0, 1.0],
    )  # fmt: skip
    assert isinstance(source, PoolFragments) and isinstance(source.backend, RayActors)
    backend, ledger = source.backend, Ledger()
    try:
        stream = source.stream()
        (assignment,) = source.lanes[0]
        lane = lane_of(assignment)
        deadline = time.monotonic() + PATIENCE_SECONDS
        # the other actor may be up long before this one
        while lane not in ledger.epochs:
            assert time.monotonic() < deadline
            ledger.add(next(stream))
        frozen = backend.facts()[0].pid
        os.kill(frozen, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        before = ledger.epochs[lane]
        while ledger.epochs[lane] == before:
            assert time.monotonic() < deadline
            ledger.add(next(stream))
        assert (backend.replaced, len(source.lanes[1])) == (1, 2)
        os.kill(frozen, signal.SIGCONT)
        while not source.lanes[0] or ledger.epochs[lane] < before + 2:
            assert time.monotonic() < deadline
            ledger.add(next(stream))
        while alive(frozen):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (backend.replaced, source.quarantined) == (1, {})
        for fragment in islice(stream, 20):
            ledger.add(fragment)
        assert (ledger.late, ledger.disordered) == (0, 0)
    finally:
        source.close()
