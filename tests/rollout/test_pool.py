"""The pool's bookkeeping over a back end in this process, whose workers come and go as a test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from mtrl.errors import ConfigError, EnvironmentFault, ResourceError
from mtrl.rollout import (
    Acting,
    Backend,
    Call,
    CallExecutor,
    CollectionConfig,
    EpisodeJob,
    Event,
    PolicySnapshot,
    PoolFragments,
    PoolRollouts,
    RuntimeConfig,
    Version,
)
from mtrl.rollout.workers.backend import MAX_KILLS, Finished, Lost
from mtrl.rollout.workers.calls import RestoreLane
from mtrl.tasks import TaskSet

from ..synthetic import CounterSuite, counter_suite, counter_task

RANDOM = PolicySnapshot("random", version=3)


class InProcess(Backend):
    """Workers that carry out a call when somebody waits; each `wait` finishes one call of every slot."""

    def __init__(self, tasks: TaskSet, slots: int = 2) -> None:
        super().__init__(60.0)
        self.tasks = tasks
        self.workers: list[CallExecutor] = []
        self.sent: list[deque[tuple[Call, PolicySnapshot]]] = [deque() for _ in range(slots)]
        self.absent: set[int] = set()
        """Slots whose next worker does not come up."""
        self.policy = RANDOM
        self.start(slots)
        self.wait(0.0)

    def publish(self, policy: PolicySnapshot, keep: int = 2) -> Version:
        self.policy = policy
        return Version(policy.incarnation, policy.version)

    def close(self) -> None:
        self._forget_calls()

    def kill(self, slot: int, *, is_cause: bool = False) -> Lost:
        return self._lose(slot, "the test wants it", is_cause=is_cause)

    def _start_worker(self, slot: int) -> None:
        worker = CallExecutor(self.tasks, {})
        self.workers[slot : slot + 1] = [worker]

    def _stop(self, slot: int) -> None:
        self.sent[slot].clear()

    def _send(self, slot: int, call: Call) -> None:
        self.sent[slot].append((call, self.policy))

    def _receive(self, seconds: float) -> list[Event]:
        events: list[Event] = []
        for index, slot in enumerate(self.slots):
            if not slot.started and index not in self.absent:
                events.append(self._started(index))
            elif self.sent[index]:
                events.append(self._perform(index, *self.sent[index].popleft()))
        return events

    def _perform(self, slot: int, call: Call, policy: PolicySnapshot) -> Event:
        try:
            return self._finished(slot, self.workers[slot].perform(call, lambda: policy))
        except Exception as error:  # noqa: BLE001 - part of the outcome
            return self._finished(slot, None, error)


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


@pytest.fixture
def tasks(suite: CounterSuite) -> TaskSet:
    return TaskSet([counter_task("counter/short", horizon=5), counter_task("counter/long", horizon=7)])


def source_of(tasks: TaskSet, delivery: str, **options: float) -> PoolFragments:
    collection = CollectionConfig(copies=2, steps=4, **options)  # type: ignore[arg-type]
    backend, config = InProcess(tasks), RuntimeConfig(attempts=2)
    return PoolFragments(
        tasks, backend, config, collection, RANDOM, 5, lambda *_: None, [1.0, 1.0], delivery=delivery
    )  # type: ignore[arg-type]


def backend_of(pool: PoolFragments | PoolRollouts) -> InProcess:
    assert isinstance(pool.backend, InProcess)
    return pool.backend


def job(task_index: int = 0, start: int = 0) -> EpisodeJob:
    return EpisodeJob(task_index, (start,), seed=0, acting=Acting(explore=True), copies=1, record=True)


@pytest.mark.parametrize("delivery", ["rounds", "arrival"])
def test_tasks_are_stepped_in_proportion_to_their_shares(tasks: TaskSet, delivery: str) -> None:
    source = source_of(tasks, delivery)
    stream = source.stream()
    assert np.bincount([next(stream).task_index for _ in range(12)]).tolist() == [6, 6]
    source.set_shares(np.array([0.75, 0.25]))
    list(islice(stream, 8))
    assert np.bincount([next(stream).task_index for _ in range(40)]).tolist() == [30, 10]
    with pytest.raises(ConfigError, match="2 numbers"):
        source.set_shares(np.array([0.75, 0.25, 0.0]))


def test_shares_set_before_the_first_fragment_move_lanes(tasks: TaskSet) -> None:
    source = source_of(tasks, "rounds")
    assert [[lane.copies for lane in lanes] for lanes in source.lanes] == [[2], [2]]
    source.set_shares(np.array([0.9, 0.1]))
    assert sorted(lane.copies for lanes in source.lanes for lane in lanes) == [1, 1, 2]
    counts = np.zeros(2)
    for fragment in islice(source.stream(), 100):
        counts[fragment.task_index] += fragment.steps
    assert abs(counts[0] / counts.sum() - 0.9) < 0.03


@pytest.mark.parametrize("delivery", ["rounds", "arrival"])
def test_lanes_of_a_worker_without_replacement_move_to_the_others(
    tasks: TaskSet, delivery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tasks, delivery)
    stream, backend = source.stream(), backend_of(source)
    backend.replacement_seconds = 0.0
    list(islice(stream, 6))
    backend.absent.add(1)
    wait = backend.wait
    lost: list[Event] = [backend.kill(1)]
    monkeypatch.setattr(backend, "wait", lambda seconds: [lost.pop()] if lost else wait(seconds))
    later = list(islice(stream, 12))
    assert [len(lanes) for lanes in source.lanes] == [2, 0]
    assert {f.task_index for f in later} == {0, 1}
    assert {f.epoch for f in later if f.task_index == 1} == {1}
    assert source.quarantined == {}
    moved = next(lane for lane in source.lanes[0] if lane.task_index == 1)
    backend.absent.clear()
    list(islice(stream, 6))
    assert [len(lanes) for lanes in source.lanes] == [1, 1], "it has come back"
    again = [f for f in islice(stream, 12) if f.task_index == 1]
    assert {f.epoch for f in again} == {2}
    assert [f.first_step for f in again] == [again[0].first_step + 4 * n for n in range(len(again))]
    hosts = [worker._worker.has(moved) for worker in backend.workers]
    assert hosts == [False, True], "and is closed where it was"


@pytest.mark.parametrize("is_cause", [True, False])
def test_a_worker_lost_over_a_lane_that_it_restores_counts_as_any_other(
    tasks: TaskSet, is_cause: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, again = source_of(tasks, "rounds"), source_of(tasks, "rounds")
    list(islice(source.stream(), 4))
    backend, deaths = backend_of(again), [is_cause]
    perform = backend._perform

    def dying(slot: int, call: Call, policy: PolicySnapshot) -> Event:
        if isinstance(call, RestoreLane) and call.assignment.task_index == 1 and deaths:
            return backend.kill(slot, is_cause=deaths.pop())
        return perform(slot, call, policy)

    monkeypatch.setattr(backend, "_perform", dying)
    again.load_state_dict(source.state_dict())
    lives = again._supervisor.state_dict()["lanes"]
    assert [life["faults"] for life in lives] == [0, is_cause]
    found = list(islice(again.stream(), 8))
    assert [f.epoch for f in found if f.task_index == 0] == [0] * 4
    # the first one was ready when the state was taken
    assert [f.epoch for f in found if f.task_index == 1] == [0, 1, 1, 1]
    assert again.quarantined == {}


def test_open_lanes_of_a_quarantined_task_are_not_saved(tasks: TaskSet) -> None:
    source = source_of(tasks, "rounds")
    list(islice(source.stream(), 4))
    fault = EnvironmentFault("counter/short", "the test", "it is to leave")
    source._supervisor.failed(source.lanes[0][0], fault)
    source._supervisor.failed(source.lanes[0][0], fault)
    assert list(source.quarantined) == [0]
    assert [entry["lane"] for entry in source.state_dict()["lanes"]] == [1]


@pytest.mark.parametrize(("is_cause", "faults"), [(False, []), (True, [False, True])])
def test_only_deaths_that_its_own_job_caused_quarantine_a_task(
    tasks: TaskSet, is_cause: bool, faults: list[bool]
) -> None:
    seen: list[bool] = []
    pool = PoolRollouts(
        tasks, InProcess(tasks), RuntimeConfig(attempts=2), lambda fault, last: seen.append(last)
    )
    backend = backend_of(pool)
    with pool.open(RANDOM) as session:
        session.extend([job()])
        for _ in faults or range(MAX_KILLS - 1):
            session._assign()
            (busy,) = [i for i, slot in enumerate(backend.slots) if slot.calls]
            session._lost(backend.kill(busy, is_cause=is_cause))
            backend.wait(0.0)
        assert (session.take() is None) == is_cause
    assert seen == faults
    assert list(pool.quarantined) == [0] * is_cause


def test_workers_that_are_killed_again_and_again_end_the_run(tasks: TaskSet) -> None:
    backend = InProcess(tasks, slots=1)
    pool = PoolRollouts(tasks, backend, RuntimeConfig())
    with pool.open(RANDOM) as session:
        session.extend([job()])
        for _ in range(MAX_KILLS - 1):
            session._assign()
            session._lost(backend.kill(0))
            backend.wait(0.0)
        session._assign()
        with pytest.raises(ResourceError, match=r"10 workers in a row were lost"):
            backend.kill(0)


def test_a_session_takes_jobs_and_policies_at_any_time(tasks: TaskSet) -> None:
    pool = PoolRollouts(tasks, InProcess(tasks), RuntimeConfig())
    with pool.open(RANDOM) as session:
        assert session.take() is None
        session.submit(job(0, 3))
        session.submit(job(1, 3))
        assert session.republish(PolicySnapshot("random", version=4)) == (0, 4)
        session.submit(job(0, 6))
        found = [session.take() for _ in range(3)]
        assert session.take() is None
    versions = {
        (r.job.task_index, r.job.starts): r.episodes.policy_version.number for r in found if r and r.episodes
    }
    assert versions == {(0, (3,)): 3, (1, (3,)): 3, (0, (6,)): 4}


def test_a_session_plans_again_for_its_first_policy_with_torch(tasks: TaskSet) -> None:
    plans: list[tuple[int, bool]] = []

    def plan(copies: int, torch: bool) -> float:
        plans.append((copies, torch))
        return float("inf")

    pool = PoolRollouts(tasks, InProcess(tasks), RuntimeConfig(), cache_plan=plan)
    with pool.open(RANDOM) as session:
        session.submit(job())
        for kind in ("expert", "sac", "sac", "random"):
            session.republish(PolicySnapshot(kind))
        session.submit(job())
    assert plans == [(1, False), (1, True)]


def test_leaving_a_session_ends_the_workers_that_are_busy(tasks: TaskSet) -> None:
    pool = PoolRollouts(tasks, InProcess(tasks), RuntimeConfig())
    with pool.open(RANDOM) as session:
        session.submit(job())
        session.submit(job(1))
        session.extend([job(), job(1)])
        session._assign()
    assert [slot.epoch for slot in pool.backend.slots] == [1, 1]
    assert pool.backend.replaced == 0, "none was lost"
    assert [result.job for result in pool.run([job()], RANDOM)] == [job()]


def test_one_session_at_a_time(tasks: TaskSet) -> None:
    pool = PoolRollouts(tasks, InProcess(tasks), RuntimeConfig())
    stream = pool.run([job(), job(0, 3)], RANDOM)
    next(stream)
    with pytest.raises(AssertionError, match="close the other"):
        pool.open(RANDOM)
    stream.close()  # type: ignore[attr-defined]
    assert len(list(pool.run([job()], RANDOM))) == 1


def test_an_answer_that_waits_for_us_is_not_late(tasks: TaskSet) -> None:
    source = source_of(tasks, "rounds")
    next(source.stream())
    backend = backend_of(source)
    waiting = [index for index, slot in enumerate(backend.slots) if slot.calls]
    backend._timeout = -1.0
    # one answer of each slot is there; what is still under way afterwards is late
    assert [type(event) for event in backend.wait(1.0)][: len(waiting)] == [Finished] * len(waiting)
    assert backend.replaced == sum(len(sent) > 0 for sent in backend.sent)
