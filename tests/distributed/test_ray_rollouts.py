"""Jobs on real Ray actors: equal results, whatever happens to the actors."""

import dataclasses
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from mtrl import registry
from mtrl.distributed import rollouts_for
from mtrl.distributed.ray_actors import RayActors
from mtrl.errors import ResourceError, UnsupportedError
from mtrl.rollout import EpisodeJob, JobResult, LocalRollouts, PoolRollouts, RuntimeConfig
from mtrl.tasks import TaskSet

from .conftest import EXPERT, Faults, evaluated, jobs_for, killing

pytestmark = pytest.mark.usefixtures("ray_cluster")

RAY = RuntimeConfig(kind="ray", actors=2)


NAMES = [
    "trial/walk",
    "trial/reach",
    "trial/slow",
    "trial/raises",
    "trial/raises-once",
    "trial/crashes",
    "trial/refuses",
    "trial/bug",
    "metaworld/reach-v3",
    "trial/exits",
    "trial/interrupts",
]
WALK, REACH, SLOW, RAISES, RAISES_ONCE, CRASHES, REFUSES, BUG, METAWORLD, EXITS, INTERRUPTS = range(11)


def task_set(names: list[str]) -> TaskSet:
    return registry.task_set(names, {"metaworld": {"horizon": 30}})


def ray_rollouts(tasks: TaskSet, config: RuntimeConfig, faults: Faults | None = None) -> PoolRollouts:
    rollouts = rollouts_for(tasks, config, faults)
    assert isinstance(rollouts, PoolRollouts)
    return rollouts


def actors(rollouts: PoolRollouts) -> RayActors:
    assert isinstance(rollouts.backend, RayActors)
    return rollouts.backend


@pytest.fixture(scope="module")
def pool(ray_cluster: None) -> Iterator[tuple[PoolRollouts, Faults]]:
    faults = Faults()
    rollouts = ray_rollouts(task_set(NAMES), RAY, faults)
    yield rollouts, faults
    rollouts.close()


@pytest.fixture
def shared(pool: tuple[PoolRollouts, Faults]) -> PoolRollouts:
    """Rollouts for every task of NAMES, without a memory of earlier tests."""
    rollouts, faults = pool
    faults.seen.clear()
    rollouts.quarantined.clear()
    return rollouts


@pytest.fixture
def faults(pool: tuple[PoolRollouts, Faults], shared: PoolRollouts) -> Faults:
    """What the shared rollouts have reported in this test."""
    return pool[1]


def run(rollouts: LocalRollouts | PoolRollouts, jobs: list[EpisodeJob]) -> list[JobResult]:
    try:
        return list(rollouts.run(jobs, EXPERT))
    finally:
        rollouts.close()


def assert_equal(ours: list[JobResult], theirs: list[JobResult]) -> None:
    """Bit-equal in every array and every summary."""
    assert [result.job for result in ours] == [result.job for result in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.summaries == b.summaries
        assert a.episodes is not None and b.episodes is not None
        for field in dataclasses.fields(a.episodes):
            left, right = getattr(a.episodes, field.name), getattr(b.episodes, field.name)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right, err_msg=field.name)
        assert a.episodes.observations.keys() == b.episodes.observations.keys()
        for bucket, rows in a.episodes.observations.items():
            np.testing.assert_array_equal(rows, b.episodes.observations[bucket])


def local(tasks: list[str], jobs: list[EpisodeJob], faults: Faults | None = None) -> list[JobResult]:
    return run(LocalRollouts(task_set(tasks), RuntimeConfig(), faults), jobs)


def test_ray_and_local_give_equal_episodes_on_a_mixed_set(shared: PoolRollouts) -> None:
    jobs = [*jobs_for(WALK, 3), *jobs_for(METAWORLD, 2), *jobs_for(REACH, 3, episodes=5)]
    finished: list[JobResult] = []
    there = list(shared.run(jobs, EXPERT, on_result=finished.append))
    again = list(shared.run(jobs, dataclasses.replace(EXPERT, config={"fraction": 1.0})))
    here = local(NAMES, jobs)
    assert_equal(there, here)
    assert {id(result) for result in finished} == {id(result) for result in there}
    first, noisier = there[0].episodes, again[0].episodes
    assert first is not None
    assert noisier is not None
    assert not np.array_equal(first.continuous, noisier.continuous), "new weights are pulled"
    loaded = [facts.modules for facts in actors(shared).facts()]
    assert len(loaded) == 2
    assert all("torch" not in modules for modules in loaded)


def test_the_loss_of_the_weight_store_is_made_good(shared: PoolRollouts) -> None:
    ray.kill(actors(shared).weights.store)
    results = list(shared.run(jobs_for(WALK, 3), dataclasses.replace(EXPERT, version=5)))
    assert [result.episodes.policy_version.number for result in results if result.episodes] == [5, 5, 5]


def test_results_are_the_callers_to_write(shared: PoolRollouts) -> None:
    (result,) = shared.run(jobs_for(WALK, 1), EXPERT)
    assert result.episodes is not None
    result.episodes.observations["state"][:] = 0.0
    result.episodes.reward += 1.0


def test_a_killed_actor_is_replaced_and_nothing_changes(
    shared: PoolRollouts, faults: Faults, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [*jobs_for(SLOW, 8), *jobs_for(WALK, 4)]
    results: list[JobResult] = []
    replaced = shared.backend.replaced
    for result in shared.run(jobs, EXPERT):
        results.append(result)
        if len(results) == 2:
            os.kill(min(facts.pid for facts in actors(shared).facts()), signal.SIGKILL)
    assert shared.backend.replaced == replaced + 1
    assert shared.quarantined == {}
    assert faults.seen == []
    assert_equal(results, local(NAMES, jobs))
    assert capfd.readouterr().out == ""


def test_a_fault_shows_its_traceback_and_takes_out_one_task(shared: PoolRollouts, faults: Faults) -> None:
    jobs = [*jobs_for(WALK, 2), *jobs_for(RAISES, 3), *jobs_for(REACH, 2)]
    replaced = shared.backend.replaced
    results = list(shared.run(jobs, EXPERT))
    heard = Faults()
    assert_equal(results, local(NAMES, jobs, heard))
    assert {result.job.task_index for result in results} == {WALK, REACH}
    assert shared.backend.replaced == replaced
    shown = shared.quarantined[RAISES]
    assert "ZeroDivisionError: the simulator's own words" in shown
    assert len(shown.splitlines()) == 1
    assert all('trial_suite.py", line' in str(fault) for fault, _ in faults.seen)
    assert len(heard.seen) == 3
    first_job = [quarantined for fault, quarantined in faults.seen if fault.summary == shown]
    assert first_job == [False, False, True]


def test_an_evaluation_lists_what_broke_and_keeps_the_rest(marks: Path) -> None:
    tasks = task_set(["trial/walk", "trial/raises", "trial/raises-once"])
    rollouts = ray_rollouts(tasks, RAY, Faults())
    found = evaluated(rollouts, tasks)
    rollouts.close()
    assert Counter(one.task for one in found.broken) == {"trial/raises": 4, "trial/raises-once": 1}
    assert [one.name for one in found.unmeasured] == ["trial/raises"]
    assert len(found.episodes) == 4 + 3


def test_a_fault_that_passes_costs_only_a_retry(marks: Path, shared: PoolRollouts, faults: Faults) -> None:
    jobs = jobs_for(RAISES_ONCE, 3)
    results = list(shared.run(jobs, EXPERT))
    assert [quarantined for _, quarantined in faults.seen] == [False]
    assert shared.quarantined == {}
    assert_equal(results, local(NAMES, jobs))


def test_a_hung_job_loses_its_actor_and_is_repeated(
    marks: Path, shared: PoolRollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While these hold the other two processors, nobody else gets actors, and is told so."""
    faults = Faults()
    jobs = [*jobs_for(0, 2), *jobs_for(1, 3)]
    tasks = ["trial/hangs-once", "trial/walk"]
    rollouts = ray_rollouts(task_set(tasks), dataclasses.replace(RAY, job_timeout_seconds=1.5), faults)
    try:
        results = list(rollouts.run(jobs, EXPERT))
        assert rollouts.backend.replaced == 1
        monkeypatch.setattr("mtrl.distributed.cluster.FREE_PROCESSORS_SECONDS", 0.5)
        list(shared.run(jobs_for(WALK, 2), EXPERT))
        with pytest.raises(ResourceError, match="2 free processors; 0 of the cluster's 4 are free"):
            ray_rollouts(task_set(tasks), RAY)
    finally:
        rollouts.close()
    assert [quarantined for _, quarantined in faults.seen] == [False]
    assert "no answer within 1.5 s" in str(faults.seen[0][0])
    assert_equal(results, local(tasks, jobs))


def test_a_task_whose_simulator_kills_its_process_is_quarantined(
    shared: PoolRollouts, faults: Faults
) -> None:
    replaced = shared.backend.replaced
    results = list(shared.run([*jobs_for(CRASHES, 1), *jobs_for(WALK, 3)], EXPERT))
    assert [result.job.task_index for result in results] == [WALK] * 3
    assert list(shared.quarantined) == [CRASHES]
    # a first death proves nothing; the actor that takes its place sees the others in its child
    assert shared.backend.replaced <= replaced + 1
    assert [quarantined for _, quarantined in faults.seen] == [False, False, True]
    assert "SIGSEGV" in shared.quarantined[CRASHES]


@pytest.mark.slow
def test_a_job_whose_actors_are_killed_from_outside_is_played_in_the_end(
    marks: Path, shared: PoolRollouts, faults: Faults
) -> None:
    jobs = jobs_for(SLOW, 1)
    replaced = shared.backend.replaced
    with killing(marks, 3):
        results = list(shared.run(jobs, EXPERT))
    assert shared.backend.replaced == replaced + 3
    assert (faults.seen, shared.quarantined) == ([], {})
    assert_equal(results, local(NAMES, jobs))


def test_an_exit_or_interrupt_of_a_plug_in_costs_its_task_alone(shared: PoolRollouts) -> None:
    replaced = shared.backend.replaced
    results = list(shared.run([job for k in (EXITS, INTERRUPTS, WALK) for job in jobs_for(k, 1)], EXPERT))
    assert [result.job.task_index for result in results] == [WALK]
    assert sorted(shared.quarantined) == [EXITS, INTERRUPTS]
    assert shared.backend.replaced == replaced


def test_our_own_errors_reach_the_caller_as_themselves(shared: PoolRollouts) -> None:
    with pytest.raises(UnsupportedError) as caught:
        list(shared.run(jobs_for(REFUSES, 2), EXPERT))
    assert str(caught.value) == "this combination is not offered"
    assert "trial_suite.py" in "".join(caught.value.__notes__)


def test_a_bug_shows_where_it_is_and_the_rollouts_stay_usable(shared: PoolRollouts) -> None:
    with pytest.raises(RayTaskError, match=r"trial_suite\.py") as caught:
        list(shared.run(jobs_for(BUG, 2), EXPERT))
    assert "IndexError: a mistake in our own code" in str(caught.value)
    assert len(list(shared.run(jobs_for(WALK, 3), EXPERT))) == 3


def test_at_most_two_jobs_per_actor_are_under_way(marks: Path, shared: PoolRollouts) -> None:
    one = [dataclasses.replace(job, copies=1, starts=job.starts[:1]) for job in jobs_for(WALK, 40)]
    finished: list[JobResult] = []
    results = shared.run(one, EXPERT, on_result=finished.append)
    for _ in range(5):
        next(results)
        time.sleep(0.2)  # long enough to play all forty
        begun = len((marks / "resets").read_text().splitlines())
        assert begun <= len(finished) + 2 * RAY.actors
    assert len(list(results)) == 35


def test_leaving_early_stops_the_work_and_the_next_run_is_whole(shared: PoolRollouts) -> None:
    jobs = jobs_for(SLOW, 6)
    for _ in shared.run(jobs, EXPERT):
        break
    assert_equal(list(shared.run(jobs, EXPERT)), local(NAMES, jobs))


def test_little_memory_keeps_few_simulators(marks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two actors x two tasks x two copies of 1 MB do not fit into 320 + 5 MB; one task each does."""
    monkeypatch.setattr("mtrl.distributed.resources.memory_megabytes", lambda: 325.0)
    tasks = ["trial/walk", "trial/reach", "trial/slow"]
    jobs = [*jobs_for(0, 3), *jobs_for(1, 3), *jobs_for(2, 3)]
    results = run(ray_rollouts(task_set(tasks), RAY), jobs)
    closed = (marks / "closed").read_text().splitlines()
    assert closed
    assert_equal(results, local(tasks, jobs))
    monkeypatch.setattr("mtrl.distributed.resources.memory_megabytes", lambda: 321.0)
    with pytest.raises(ResourceError, match="actors need at least 322 MB"):
        ray_rollouts(task_set(tasks), RAY)


def test_more_actors_than_processors_is_said_at_once() -> None:
    with pytest.raises(ResourceError, match=r"runtime\.actors=4000"):
        ray_rollouts(task_set(["trial/walk"]), RuntimeConfig(kind="ray", actors=4000))
