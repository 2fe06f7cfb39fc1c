"""Fragments for a learner in another process of the cluster than the one that owns the workers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.exceptions import WorkerCrashedError

from mtrl import registry
from mtrl.distributed.remote_fragments import RemoteFragments
from mtrl.errors import ResourceError, UnsupportedError
from mtrl.rollout import CollectionConfig, Delivery, Fragment, PolicySnapshot, RuntimeConfig

from .conftest import Faults
from .test_fragments import assert_same, by_task, local

pytestmark = pytest.mark.usefixtures("ray_cluster")

RAY = RuntimeConfig(kind="ray", actors=2)
COLLECTION = CollectionConfig(copies=2, steps=5)
RANDOM = PolicySnapshot(kind="random", version=1)


@contextmanager
def served(tasks: list[str], delivery: Delivery = "arrival") -> Iterator[RemoteFragments]:
    costs = [1.0] * len(tasks)
    source = RemoteFragments.start(
        registry.task_set(tasks), RAY, COLLECTION, RANDOM, 7, costs, delivery=delivery
    )
    try:
        yield source
    finally:
        source.end()


def take(source: RemoteFragments, count: int, version: int = 1) -> list[Fragment]:
    """`count` fragments, taken in the process that calls this, after a publication."""
    source.publish(PolicySnapshot("random", version=version))
    return list(islice(source.stream(), count))


def crash(source: RemoteFragments) -> None:
    """Takes a fragment and dies of it."""
    next(source.stream())
    os._exit(1)


def test_a_task_of_the_cluster_consumes_publishes_and_may_die(marks: Path) -> None:
    tasks = ["trial/walk", "trial/reach"]
    elsewhere = {"num_cpus": 1, "max_retries": 0}
    with served(tasks) as source:
        first: list[Fragment] = ray.get(ray.remote(take).options(**elsewhere).remote(source, 8))
        with pytest.raises(WorkerCrashedError):
            ray.get(ray.remote(crash).options(**elsewhere).remote(source))
        second: list[Fragment] = ray.get(ray.remote(take).options(**elsewhere).remote(source, 12, version=5))
    here = local(tasks)
    expected = by_task(list(islice(here.stream(), 40)))
    here.close()
    for k, fragments in by_task(first).items():
        for ours, theirs in zip(fragments, expected[k], strict=False):
            assert_same(ours, theirs)
    assert {f.policy_version.number for f in first} == {1}
    assert sum(f.policy_version.number == 1 for f in second) <= 2 * RAY.actors
    assert second[-1].policy_version.number == 5


def test_a_learner_elsewhere_resumes_exactly_and_sets_shares(marks: Path) -> None:
    with served(["trial/walk", "trial/reach"], "rounds") as source:
        source.set_shares(np.array([0.75, 0.25]))
        before = list(islice(source.stream(), 6))
        state = source.state_dict()
        expected = list(islice(source.stream(), 8))
    steps = [sum(f.steps for f in before + expected if f.task_index == k) for k in range(2)]
    assert steps == [60, 20]
    with served(["trial/walk", "trial/reach"], "rounds") as source:
        source.load_state_dict(state)
        found = list(islice(source.stream(), 8))
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_faults_and_errors_reach_the_learner(marks: Path) -> None:
    with served(["trial/raises", "trial/refuses"]) as source:
        source.on_fault = faults = Faults()
        with pytest.raises(UnsupportedError, match="not offered"):
            list(source.stream())
    assert all(fault.task == "trial/raises" for fault, _ in faults.seen)
    many = RuntimeConfig(kind="ray", actors=4000)
    with pytest.raises(ResourceError, match=r"runtime\.actors=4000"):
        RemoteFragments.start(registry.task_set(["trial/walk"]), many, COLLECTION, RANDOM, 7)
