"""Continuous collection, here and on Ray: the same lanes, the same fragments."""

import dataclasses
import os
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.distributed.actor import ActorFacts
from mtrl.distributed.ray_actors import RayActors
from mtrl.errors import OutOfRangeError
from mtrl.rollout import (
    CollectionConfig,
    Fragment,
    LocalFragments,
    PolicySnapshot,
    PoolFragments,
    RuntimeConfig,
    fragment_bytes,
)

from .conftest import Faults

RAY = RuntimeConfig(kind="ray", actors=2)
COLLECTION = CollectionConfig(copies=2, steps=5)
RANDOM = PolicySnapshot(kind="random", version=1)


def local(tasks: list[str], faults: Faults | None = None) -> LocalFragments:
    return LocalFragments(registry.task_set(tasks), RuntimeConfig(), COLLECTION, RANDOM, 7, faults)


def ray_fragments(
    tasks: list[str],
    collection: CollectionConfig = COLLECTION,
    faults: Faults | None = None,
    step_seconds: list[float] | None = None,
) -> PoolFragments:
    source = fragments_for(registry.task_set(tasks), RAY, collection, RANDOM, 7, faults, step_seconds)
    assert isinstance(source, PoolFragments)
    return source


def facts(source: PoolFragments) -> list[ActorFacts]:
    assert isinstance(source.backend, RayActors)
    return source.backend.facts()


def by_task(fragments: list[Fragment]) -> dict[int, list[Fragment]]:
    return {k: [f for f in fragments if f.task_index == k] for k in {f.task_index for f in fragments}}


def assert_same(ours: Fragment, theirs: Fragment) -> None:
    for field in dataclasses.fields(Fragment):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            for bucket in left:
                np.testing.assert_array_equal(left[bucket], right[bucket], err_msg=field.name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=field.name)


def test_local_fragments_take_turns_go_on_and_repeat_exactly(trial_folder: Path) -> None:
    tasks = ["trial/walk", "trial/reach"]
    first, second = local(tasks), local(tasks)
    ours, theirs = list(islice(first.stream(), 6)), list(islice(second.stream(), 6))
    assert [f.task_index for f in ours] == [0, 1, 0, 1, 0, 1]
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)
    for earlier, later in ((0, 2), (2, 4), (1, 3)):
        np.testing.assert_array_equal(
            ours[earlier].observations["state"][-1], ours[later].observations["state"][0]
        )
    first.publish(dataclasses.replace(RANDOM, version=2))
    assert next(first.stream()).policy_version == (0, 2)
    first.close()
    second.close()


def test_a_lane_that_fails_begins_afresh_with_new_episodes(marks: Path) -> None:
    """Horizon 7, five steps a fragment; the first episode of copy 0 fails at its third decision."""
    faults = Faults()
    source = local(["trial/raises-once"], faults)
    fragments = list(islice(source.stream(), 4))
    source.close()
    assert [quarantined for _, quarantined in faults.seen] == [False]
    resets = [int(line.split()[2]) for line in (marks / "resets").read_text().splitlines()]
    assert len(set(resets)) == len(resets), "no start is played twice"
    ends = np.concatenate([f.episode_id[f.final_index[:, 0], f.final_index[:, 1]] for f in fragments])
    assert len(set(ends)) == len(ends)


def test_a_task_that_always_fails_is_left_out_of_local_fragments(trial_folder: Path) -> None:
    faults = Faults()
    source = local(["trial/raises", "trial/walk"], faults)
    assert [f.task_index for f in islice(source.stream(), 4)] == [1, 1, 1, 1]
    assert [quarantined for _, quarantined in faults.seen] == [False, False, True]
    assert "the simulator's own words" in source.quarantined[0]
    source.close()
    nothing_left = local(["trial/raises"])
    assert list(nothing_left.stream()) == []
    nothing_left.close()


def test_size_of_a_fragment_is_what_its_arrays_hold(trial_folder: Path) -> None:
    tasks = registry.task_set(["trial/walk", "trial/reach"])
    source = local(["trial/walk", "trial/reach"])
    fragment = next(source.stream())
    source.close()
    arrays = [*fragment.observations.values(), fragment.continuous, fragment.discrete, fragment.reward]
    arrays += [fragment.terminated, fragment.truncated, fragment.success]
    arrays += [fragment.start_id, fragment.episode_id]
    size = sum(array.nbytes for array in arrays)
    assert fragment_bytes(tasks, 0, 2, 5) == size
    more = [fragment.extras["log_probability"], fragment.final_index, *fragment.final_observations.values()]
    assert fragment.nbytes == size + sum(array.nbytes for array in more)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"collection\.steps=0"):
        CollectionConfig(steps=0)


@pytest.mark.usefixtures("ray_cluster")
class TestRay:
    """One crew for the tests of a kind; random play needs no torch and no expert."""

    def test_each_lane_gives_the_fragments_of_the_local_runtime(self) -> None:
        tasks = ["trial/walk", "trial/reach"]
        # equal costs, so that each task is one lane as it is here
        source = ray_fragments(tasks, step_seconds=[1.0, 1.0])
        try:
            stream, ours, later = source.stream(), list[Fragment](), list[Fragment]()
            while len(by_task(ours)) < 2 or len(ours) < 8:
                ours.append(next(stream))
            source.publish(dataclasses.replace(RANDOM, version=2))
            while len(later) < 12:
                later.append(next(stream))
            costs = source.step_seconds
        finally:
            source.close()
        here = local(tasks)
        theirs = by_task(list(islice(here.stream(), 2 * len(ours))))
        here.close()
        for k, fragments in by_task(ours).items():
            for a, b in zip(fragments, theirs[k], strict=False):
                assert_same(a, b)
        for fragments in by_task(later).values():
            versions = [f.policy_version for f in fragments]
            assert versions == sorted(versions), "an actor never goes back to older weights"
        assert sum(f.policy_version == (0, 1) for f in later) <= 2 * RAY.actors
        assert all(cost > 0 for cost in costs)

    def test_a_killed_actor_gets_its_lanes_back(self, marks: Path) -> None:
        source = ray_fragments(["trial/walk", "trial/reach"])
        ends: list[tuple[int, int]] = []
        try:
            stream = source.stream()
            after: set[int] = set()
            for count, fragment in enumerate(stream):
                rows = fragment.final_index
                ends += [(fragment.task_index, int(i)) for i in fragment.episode_id[rows[:, 0], rows[:, 1]]]
                if count == 10:
                    os.kill(facts(source)[0].pid, signal.SIGKILL)
                if source.backend.replaced and len(facts(source)) == 2:
                    after.add(fragment.task_index)
                if after == {0, 1}:
                    break
            assert source.backend.replaced == 1
            assert source.quarantined == {}
        finally:
            source.close()
        assert len(set(ends)) == len(ends), "an episode id never comes back"

    def test_a_failing_task_leaves_and_actors_wait_for_a_slow_learner(self, marks: Path) -> None:
        faults = Faults()
        tasks = registry.task_set(["trial/raises", "trial/walk", "trial/reach"])
        size = fragment_bytes(tasks, 1, 2, 5)
        tight = dataclasses.replace(COLLECTION, queue_megabytes=2.5 * size / 2**20)
        source = ray_fragments([task.name for task in tasks], tight, faults)
        try:
            stream = source.stream()
            seen: set[int] = set()
            while not source.quarantined or len(seen) < 2:
                seen.add(next(stream).task_index)
            assert seen == {1, 2}
            assert list(source.quarantined) == [0]
            assert [quarantined for _, quarantined in faults.seen] == [False, False, True]
            time.sleep(1.0)
            resting = (marks / "resets").read_text()
            time.sleep(0.5)
            assert (marks / "resets").read_text() == resting
            assert len(list(islice(stream, 6))) == 6
        finally:
            source.close()
