"""The worker: environments reused, policies rebuilt when they differ, lanes resumed, faults kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from mtrl import registry
from mtrl.errors import ConfigError, EnvironmentFault, UnsupportedError
from mtrl.rollout import (
    Acting,
    EpisodeJob,
    Fragment,
    LaneAssignment,
    PolicySnapshot,
    RandomPolicy,
    RolloutWorker,
)
from mtrl.tasks import Option, Task, TaskSet

from ..synthetic import CounterEnvironment, CounterSuite, counter_suite, counter_task
from ..walk import WALK, walking_policy

RANDOM = PolicySnapshot("random", version=5)
STEP_ARRAYS = (
    "continuous",
    "discrete",
    "reward",
    "terminated",
    "truncated",
    "success",
    "start_id",
    "episode_id",
)


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


def worker_of(**options: Option) -> RolloutWorker:
    """A worker for the short task (with the options) and the task of frames."""
    short = counter_task("counter/short", **options)  # type: ignore[arg-type]
    return RolloutWorker(TaskSet([short, counter_task("counter/frames", horizon=3)]))


def job_of(task_index: int = 0, starts: Sequence[int] = (2, 5, 8), **settings: object) -> EpisodeJob:
    defaults = {"seed": 1, "acting": Acting(), "copies": 2, "record": True}
    return EpisodeJob(task_index, tuple(starts), **{**defaults, **settings})  # type: ignore[arg-type]


def beside(fragments: Sequence[Fragment], name: str) -> np.ndarray:
    """One array of several lanes side by side, [T, N of all]."""
    return np.concatenate([getattr(fragment, name) for fragment in fragments], axis=1)


def test_jobs_reuse_environments_and_leave_no_trace_in_them(suite: CounterSuite) -> None:
    worker = worker_of()
    first = worker.run(job_of(), RANDOM)
    worker.run(job_of(starts=[11], copies=1), RANDOM)
    again = worker.run(job_of(), RANDOM)
    assert len(suite.built) == 2
    assert first.summaries == again.summaries
    assert first.episodes is not None
    assert again.episodes is not None
    np.testing.assert_array_equal(first.episodes.continuous, again.episodes.continuous)
    worker.close()
    assert all(environment.closed for environment in suite.built)


def test_a_job_after_a_fault_gets_fresh_environments(suite: CounterSuite) -> None:
    worker = worker_of()
    expected = worker.run(job_of(), RANDOM)
    worker.run(job_of(1), RANDOM)
    old = list(suite.built)
    suite.failures = 1
    with pytest.raises(EnvironmentFault, match="the arm fell off"):
        worker.run(job_of(), RANDOM)
    assert [environment.closed for environment in old] == [True, True, False, False]
    assert worker.run(job_of(), RANDOM).summaries == expected.summaries
    assert len(suite.built) == 6
    worker.run(job_of(1), RANDOM)
    assert len(suite.built) == 6, "the other task kept its environments"


def test_an_environment_that_cannot_be_built_is_a_fault(
    suite: CounterSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: object) -> CounterEnvironment:
        raise OSError("no such mesh")

    monkeypatch.setattr(suite, "environment", broken)
    with pytest.raises(EnvironmentFault, match=r"at construction:(?s:.*)OSError: no such mesh"):
        worker_of().run(job_of(), RANDOM)
    with pytest.raises(EnvironmentFault, match="no such mesh"):
        worker_of().open(LaneAssignment(0, 1, 0, 1), RANDOM, seed=0)


def test_a_fault_while_closing_hides_no_other(suite: CounterSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(self: CounterEnvironment) -> None:
        raise RuntimeError("the window hangs")

    monkeypatch.setattr(CounterEnvironment, "close", stuck)
    with pytest.raises(EnvironmentFault, match="the arm fell off"):
        worker_of(fail_at=2).run(job_of(), RANDOM)


def test_a_job_never_ends_on_success(suite: CounterSuite) -> None:
    worker = worker_of(success_at=2, end_on_success=True)
    for summary in worker.run(job_of(), RANDOM).summaries:
        assert (summary.length, summary.terminated, summary.first_success) == (4, False, 2)
    assignment = LaneAssignment(0, 1, 0, 1)
    worker.open(assignment, RANDOM, seed=0)
    np.testing.assert_array_equal(
        worker.collect(assignment, 4, RANDOM, acting=Acting(explore=True)).terminated[:, 0],
        [False, True, False, True],
    )


def test_a_suite_without_starts_serves_continuous_training_only(suite: CounterSuite) -> None:
    suite.supports_starts = False
    worker = worker_of()
    with pytest.raises(UnsupportedError, match="'counter' cannot reset to a given start"):
        worker.run(job_of(), RANDOM)
    assignment = LaneAssignment(0, 2, 0, 2)
    worker.open(assignment, RANDOM, seed=0)
    assert worker.collect(assignment, 2, RANDOM, acting=Acting(explore=True)).steps == 4
    with pytest.raises(UnsupportedError, match="cannot resume"):
        worker.lanes_state()


class Counted:
    """An agent that counts how often its policy was built."""

    name, config_class, metrics = "counted", object, ()

    def build(self, *parts: object) -> None:
        """Not asked for here."""

    needs = extras = build

    def __init__(self) -> None:
        self.built = 0

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> RandomPolicy:
        self.built += 1
        return RandomPolicy(tasks, snapshot.version)


def test_a_policy_is_rebuilt_when_anything_about_it_differs(suite: CounterSuite) -> None:
    def snapshot(weight: float, width: int = 8) -> PolicySnapshot:
        return PolicySnapshot("counted", {"sizes": {"width": width}}, {"weight": np.full(3, weight)})

    agent, worker = Counted(), worker_of()
    registry.register("agent", "counted", agent)
    try:
        for expected, (weight, width) in enumerate([(1.0, 8), (2.0, 8), (2.0, 9), (1.0, 8)], start=1):
            worker.run(job_of(), snapshot(weight, width))
            worker.run(job_of(), snapshot(weight, width))
            assert agent.built == expected
    finally:
        registry.unregister("agent", "counted")


@pytest.mark.parametrize("task_index", [0, 1])
@pytest.mark.parametrize("copies_of_lanes", [(2, 2), (1, 3), (1, 1, 1, 1)])
def test_results_do_not_depend_on_who_hosts_a_copy(
    suite: CounterSuite, task_index: int, copies_of_lanes: tuple[int, ...]
) -> None:
    whole = worker_of(terminate_at=3)
    one_lane = LaneAssignment(task_index, 4, 0, 4)
    whole.open(one_lane, RANDOM, seed=9)
    alone = [whole.collect(one_lane, 7, RANDOM, acting=Acting(explore=True)) for _ in range(2)]

    lanes, first = [], 0
    for copies in copies_of_lanes:
        lanes.append(LaneAssignment(task_index, copies, first, 4))
        first += copies
    workers = [worker_of(terminate_at=3) for _ in lanes]
    for worker, lane in zip(workers, lanes, strict=True):
        worker.open(lane, RANDOM, seed=9)
    for round_number in range(2):
        parts = [
            worker.collect(lane, 7, RANDOM, acting=Acting(explore=True))
            for worker, lane in zip(workers, lanes, strict=True)
        ]
        for name in STEP_ARRAYS:
            np.testing.assert_array_equal(
                beside(parts, name), getattr(alone[round_number], name), err_msg=name
            )
        for bucket, rows in alone[round_number].observations.items():
            np.testing.assert_array_equal(
                np.concatenate([p.observations[bucket] for p in parts], axis=1), rows
            )


def test_fragments_say_which_policy_made_them(suite: CounterSuite) -> None:
    worker, assignment = worker_of(), LaneAssignment(0, 1, 0, 1)
    worker.open(assignment, RANDOM, seed=0)
    assert worker.collect(assignment, 2, RANDOM, acting=Acting(explore=True)).policy_version == (0, 5)
    newer = PolicySnapshot("random", version=6, incarnation=3)
    assert worker.collect(assignment, 2, newer, acting=Acting(explore=True)).policy_version == (3, 6)


@pytest.mark.parametrize("interrupted_after", [1, 6, 12])
def test_open_lanes_resume_where_they_were(suite: CounterSuite, interrupted_after: int) -> None:
    # after 6 decisions the first task is amid an episode, after 12 both have just begun one
    assignments = [LaneAssignment(0, 2, 0, 3), LaneAssignment(0, 1, 2, 3), LaneAssignment(1, 2, 0, 2)]
    worker, resumed = worker_of(success_at=1), worker_of(success_at=1)
    with walking_policy():
        for assignment in assignments:
            worker.open(assignment, WALK, seed=3)
            worker.collect(assignment, interrupted_after, WALK, acting=Acting(explore=True))
        saved = worker.lanes_state()
        expected = [
            worker.collect(assignment, 9, WALK, acting=Acting(explore=True)) for assignment in assignments
        ]
        for assignment, state in zip(assignments, saved, strict=True):
            resumed.open(assignment, WALK, seed=3)
            resumed.load_lane_state(state)
        found = [
            resumed.collect(assignment, 9, WALK, acting=Acting(explore=True)) for assignment in assignments
        ]
    for fragment, same in zip(found, expected, strict=True):
        for name in (*STEP_ARRAYS, "final_index"):
            np.testing.assert_array_equal(getattr(fragment, name), getattr(same, name), err_msg=name)
        for bucket in same.observations:
            np.testing.assert_array_equal(fragment.observations[bucket], same.observations[bucket])
            np.testing.assert_array_equal(
                fragment.final_observations[bucket], same.final_observations[bucket]
            )


def test_a_copy_that_cannot_be_built_leaves_no_other_open(
    suite: CounterSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = suite.environment

    def two_at_most(task: Task) -> CounterEnvironment:
        if len(suite.built) == 2:
            raise RuntimeError("no licence left")
        return build(task)

    monkeypatch.setattr(suite, "environment", two_at_most)
    worker = RolloutWorker(TaskSet([counter_task()]))
    with pytest.raises(EnvironmentFault, match="no licence left"):
        worker.open(LaneAssignment(0, 3, 0, 3), RANDOM, 0)
    assert [environment.closed for environment in suite.built] == [True, True]


def test_a_fault_closes_its_lane_and_no_other(suite: CounterSuite) -> None:
    worker = worker_of()
    assignments = [LaneAssignment(0, 2, 0, 2), LaneAssignment(1, 1, 0, 1)]
    for assignment in assignments:
        worker.open(assignment, RANDOM, seed=0)
    suite.failures = 1
    with pytest.raises(EnvironmentFault):
        worker.collect(assignments[0], 5, RANDOM, acting=Acting(explore=True))
    assert [environment.closed for environment in suite.built] == [True, True, False]
    with pytest.raises(ConfigError, match=r"no lane is open.*open it first"):
        worker.collect(assignments[0], 5, RANDOM, acting=Acting(explore=True))
    assert worker.collect(assignments[1], 5, RANDOM, acting=Acting(explore=True)).steps == 5
    worker.open(assignments[0], RANDOM, seed=1)
    assert worker.collect(assignments[0], 5, RANDOM, acting=Acting(explore=True)).steps == 10
    worker.close()
    assert all(environment.closed for environment in suite.built)


def test_opening_a_lane_again_closes_the_old_one(suite: CounterSuite) -> None:
    worker, assignment = worker_of(), LaneAssignment(0, 1, 0, 1)
    worker.open(assignment, RANDOM, seed=0)
    worker.open(assignment, RANDOM, seed=0)
    assert [environment.closed for environment in suite.built] == [True, False]
