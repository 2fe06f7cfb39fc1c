"""Continuous collection in worker processes: the local runtime's fragments, faults, deaths, policies."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.distributed import fragments_for, rollouts_for
from mtrl.errors import ConfigError, IntegrityError, ResourceError, UnknownNameError, UnsupportedError
from mtrl.rollout import (
    CollectionConfig,
    Fragment,
    LocalFragments,
    LocalRollouts,
    PolicySnapshot,
    PoolFragments,
    PoolRollouts,
    Processes,
    RuntimeConfig,
)
from mtrl.rollout.workers import processes
from mtrl.rollout.workers.backend import Event, Ready
from mtrl.rollout.workers.calls import Play
from mtrl.rollout.workers.messages import pack_frame, read_frame, write_frame
from mtrl.rollout.workers.processes import WorkerLink
from mtrl.tasks import TaskSet
from mtrl.training import EpisodeStatistics

from ..synthetic import CounterSuite, counter_task
from .conftest import EXPERT, Faults, evaluated, jobs_for, killing
from .test_fragments import assert_same, by_task

TWO = RuntimeConfig(workers=2)
COLLECTION = CollectionConfig(copies=2, steps=5)
RANDOM = PolicySnapshot(kind="random", version=1)


@contextmanager
def workers(
    tasks: list[str],
    faults: Faults | None = None,
    config: RuntimeConfig = TWO,
    collection: CollectionConfig = COLLECTION,
    costs: list[float] | None = None,
) -> Iterator[PoolFragments]:
    """Equal costs unless given, so that with two tasks each is one lane in a process of its own."""
    source = fragments_for(
        registry.task_set(tasks), config, collection, RANDOM, 7, faults, costs or [1.0] * len(tasks)
    )
    assert isinstance(source, PoolFragments)
    try:
        yield source
    finally:
        source.close()


def pids(pool: PoolFragments | PoolRollouts) -> tuple[int, ...]:
    assert isinstance(pool.backend, Processes)
    return pool.backend.pids


def local(tasks: list[str], count: int) -> list[Fragment]:
    source = LocalFragments(registry.task_set(tasks), RuntimeConfig(), COLLECTION, RANDOM, 7)
    try:
        return list(islice(source.stream(), count))
    finally:
        source.close()


def test_fragments_are_those_of_the_local_runtime_in_its_order(trial_folder: Path) -> None:
    tasks = ["trial/walk", "trial/reach"]
    with workers(tasks) as source:
        assert [len(lanes) for lanes in source.lanes] == [1, 1]
        assert len({*pids(source), os.getpid()}) == 3
        ours = list(islice(source.stream(), 4))
        ours += islice(source.stream(), 4)  # left, and called again
    for a, b in zip(ours, local(tasks, 8), strict=True):
        assert_same(a, b)


def test_a_published_policy_is_used_by_what_is_asked_for_later(trial_folder: Path) -> None:
    with workers(["trial/walk", "trial/reach"]) as source:
        stream = source.stream()
        before = [next(stream) for _ in range(2)]
        source.publish(dataclasses.replace(RANDOM, version=2))
        source.publish(dataclasses.replace(RANDOM, version=3))
        after = [next(stream) for _ in range(6)]
    assert [f.policy_version.number for f in before] == [1, 1]
    # one fragment of each lane was under way; of two policies in a row only the newer one travels
    assert [f.policy_version.number for f in after] == [1, 1, 3, 3, 3, 3]


def test_lanes_are_dealt_by_what_a_decision_costs(trial_folder: Path) -> None:
    tasks = ["trial/slow", "trial/walk", "trial/reach"]
    source = fragments_for(registry.task_set(tasks), TWO, COLLECTION, RANDOM, 7)
    assert isinstance(source, PoolFragments)
    source.close()
    slow, walk, reach = source.step_seconds
    assert slow > 0.009 > 3 * max(walk, reach), "a step of the slow task sleeps for 10 ms"
    slow_copies = [sum(s.copies for s in lanes if s.task_index == 0) for lanes in source.lanes]
    assert slow_copies == [1, 1], "the dear task is split between the processes"


def test_a_lane_that_fails_begins_afresh(marks: Path) -> None:
    faults = Faults()
    with workers(["trial/raises-once", "trial/walk"], faults) as source:
        fragments = list(islice(source.stream(), 8))
    assert [quarantined for _, quarantined in faults.seen] == [False]
    assert "the simulator's own words" in faults.seen[0][0].detail
    assert {k: len(found) for k, found in by_task(fragments).items()} == {0: 4, 1: 4}
    ends = np.concatenate(
        [f.episode_id[f.final_index[:, 0], f.final_index[:, 1]] for f in by_task(fragments)[0]]
    )
    assert len(set(ends)) == len(ends)


def test_a_task_that_always_fails_is_left_out(trial_folder: Path) -> None:
    faults = Faults()
    with workers(["trial/raises", "trial/walk"], faults) as source:
        assert [f.task_index for f in islice(source.stream(), 3)] == [1, 1, 1]
        assert [quarantined for _, quarantined in faults.seen] == [False, False, True]
    with workers(["trial/raises"], Faults()) as source:
        assert list(source.stream()) == []


def test_a_process_that_is_killed_is_replaced(marks: Path) -> None:
    faults = Faults()
    with workers(["trial/walk", "trial/reach"], faults) as source:
        stream = source.stream()
        before = [next(stream) for _ in range(4)]
        victim = pids(source)[0]
        os.kill(victim, signal.SIGKILL)
        after = [next(stream) for _ in range(8)]
        assert source.backend.replaced == 1
        assert victim not in pids(source)
    assert faults.seen == [], "a kill from outside is no fault of the task"
    assert [f.task_index for f in before + after] == [0, 1] * 6
    for fragments in by_task(before + after).values():
        ids = [f.episode_id for f in fragments]
        ends = np.concatenate(
            [i[f.final_index[:, 0], f.final_index[:, 1]] for i, f in zip(ids, fragments, strict=True)]
        )
        assert len(set(ends)) == len(ends), "no episode is told twice"


def test_every_start_that_was_begun_ends_once_is_under_way_or_is_listed_as_lost(marks: Path) -> None:
    statistics = EpisodeStatistics(["trial/walk", "trial/reach"])
    begun: set[tuple[int, int]] = set()
    ended: list[tuple[int, int]] = []
    last: dict[int, set[tuple[int, int]]] = {}
    with workers(["trial/walk", "trial/reach"]) as source:
        stream = source.stream()
        for number in range(24):
            if number in (4, 12):
                os.kill(pids(source)[0], signal.SIGKILL)
            fragment = next(stream)
            task, starts = fragment.task_index, fragment.start_id
            begun |= {(task, int(start)) for start in starts.flat}
            ended += [
                (task, int(start)) for start in starts[fragment.final_index[:, 0], fragment.final_index[:, 1]]
            ]
            last[task] = {(task, int(start)) for start in starts[-1]}
            statistics.add(fragment)
        assert source.backend.replaced == 2
    statistics.merge()
    lost = [(one.task_index, one.start) for one in statistics.take_lost()]
    assert len(lost) == 2 * COLLECTION.copies, "two deaths of a lane of two copies"
    assert len({*ended, *lost}) == len(ended) + len(lost), "no start counts twice"
    assert begun - {*ended, *lost} == set().union(*last.values()) - {*ended, *lost}
    assert statistics.take_lost() == []


def test_a_task_that_kills_its_process_is_quarantined_and_the_others_go_on(marks: Path) -> None:
    faults = Faults()
    with workers(["trial/crashes", "trial/walk"], faults) as source:
        fragments = list(islice(source.stream(), 3))
    assert [f.task_index for f in fragments] == [1, 1, 1]
    assert faults.seen[-1][1]


def test_a_process_that_hangs_is_replaced(marks: Path) -> None:
    faults = Faults()
    config = RuntimeConfig(workers=2, job_timeout_seconds=2.0)
    with workers(["trial/hangs-once", "trial/walk"], faults, config) as source:
        fragments = list(islice(source.stream(), 4))
        assert source.backend.replaced == 1
    assert {f.task_index for f in fragments} == {0, 1}
    assert "no answer within 2 s" in faults.seen[0][0].detail


def test_an_error_that_says_what_to_do_is_passed_on(trial_folder: Path) -> None:
    with workers(["trial/refuses"]) as source, pytest.raises(UnsupportedError):
        next(source.stream())


def test_a_bug_is_no_fault_of_the_environment(trial_folder: Path) -> None:
    task = registry.task_set(["trial/bug"])
    source = fragments_for(task, TWO, COLLECTION, EXPERT, 7, None, [1.0])
    with pytest.raises(RuntimeError, match="IndexError: a mistake in our own code"):
        next(source.stream())
    source.close()
    with players(["trial/bug"]) as rollouts, pytest.raises(RuntimeError, match="a mistake in our own code"):
        list(rollouts.run(jobs_for(0, 1), EXPERT))


def test_what_cannot_travel_is_said_at_once(trial_folder: Path) -> None:
    odd = dataclasses.replace(EXPERT, config={"noise": Path("here")})
    with players(["trial/walk"]) as rollouts, pytest.raises(TypeError, match="plain values"):
        list(rollouts.run(jobs_for(0, 1), odd))


def test_a_task_that_cannot_be_measured_is_taken_for_a_usual_one(marks: Path) -> None:
    tasks = registry.task_set(["trial/slow", "trial/crashes", "trial/raises", "trial/walk"])
    source = fragments_for(tasks, TWO, COLLECTION, RANDOM, 7)
    assert isinstance(source, PoolFragments)
    source.close()
    slow, crashing, raising, walking = source.step_seconds
    assert slow > 0.009 > walking
    assert crashing == raising == (slow + walking) / 2
    assert source.backend.replaced == 1


def test_a_constructor_that_fails_leaves_no_process(
    trial_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[WorkerLink] = []

    class Kept(WorkerLink):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            links.append(self)

    monkeypatch.setattr(processes, "WorkerLink", Kept)
    with pytest.raises(ConfigError, match="one positive cost per task"):
        fragments_for(registry.task_set(["trial/walk"]), TWO, COLLECTION, RANDOM, 7, None, [1.0, 1.0])
    assert len(links) == 2
    for link in links:
        with pytest.raises(ProcessLookupError):
            os.kill(link.process.pid, 0)


def test_a_process_that_cannot_start_is_no_fault_of_its_first_job(
    trial_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with players(["trial/walk"], faults) as rollouts, pytest.raises(ResourceError, match="could not start"):
        list(rollouts.run(jobs_for(0, 4), EXPERT))
    assert faults.seen == []


PARENT = """
from mtrl import registry
from mtrl.distributed import rollouts_for
from mtrl.rollout import Acting, EpisodeJob, PolicySnapshot, RuntimeConfig

rollouts = rollouts_for(registry.task_set(["trial/slow"]), RuntimeConfig(workers=1))
jobs = [EpisodeJob(0, (0,) * episodes, 0, Acting(explore=True), 1) for episodes in (1, 600)]
for result in rollouts.run(jobs, PolicySnapshot("expert")):
    print(*rollouts.backend.pids, flush=True)
"""
"""A run whose second job lasts a minute."""


def test_a_worker_ends_in_the_midst_of_a_job_when_its_parent_is_killed(marks: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        # the first episode of the first job, and some of the second
        until(lambda: (marks / "resets").read_text().count(f"{worker} ") > 3)
        parent.kill()
    until(lambda: has_ended(worker))


def until(happened: Callable[[], bool]) -> None:
    """Waits; fails after a time that is no part of what is tested."""
    deadline = time.monotonic() + 20.0
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but to be asked how it ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_a_run_that_is_left_early_ends_without_a_word(
    trial_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        with players(["trial/slow"]) as rollouts:
            next(rollouts.run(jobs_for(0, 8), EXPERT))
    assert "Traceback" not in capfd.readouterr().err


def test_no_process_is_left_behind(trial_folder: Path) -> None:
    with workers(["trial/walk"]) as source:
        next(source.stream())
        left = pids(source)
    for pid in left:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@contextmanager
def players(
    tasks: list[str], faults: Faults | None = None, config: RuntimeConfig = TWO
) -> Iterator[PoolRollouts]:
    rollouts = rollouts_for(registry.task_set(tasks), config, faults)
    assert isinstance(rollouts, PoolRollouts)
    try:
        yield rollouts
    finally:
        rollouts.close()


def test_episodes_are_those_of_the_local_runtime(trial_folder: Path) -> None:
    tasks = ["trial/walk", "trial/reach", "trial/slow"]
    jobs = [job for k in range(3) for job in jobs_for(k, 3)]
    here = LocalRollouts(registry.task_set(tasks), RuntimeConfig())
    expected = list(here.run(jobs, EXPERT))
    here.close()
    seen: list[int] = []
    with players(tasks) as rollouts:
        found = list(rollouts.run(jobs, EXPERT, on_result=lambda r: seen.append(r.job.task_index)))
        again = list(rollouts.run(jobs[:2], PolicySnapshot("random", version=4)))
    assert sorted(seen) == [job.task_index for job in jobs]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.job == theirs.job
        assert ours.summaries == theirs.summaries
        assert ours.episodes is not None
        assert theirs.episodes is not None
        for name in ("offsets", "continuous", "label", "discrete", "reward", "truncated", "success"):
            np.testing.assert_array_equal(getattr(ours.episodes, name), getattr(theirs.episodes, name))
        for bucket, rows in theirs.episodes.observations.items():
            np.testing.assert_array_equal(ours.episodes.observations[bucket], rows)
    assert [result.episodes.policy_version.number for result in again if result.episodes] == [4, 4]


def test_jobs_outlive_the_processes_that_play_them(marks: Path) -> None:
    faults = Faults()
    jobs = jobs_for(0, 6)
    with players(["trial/slow"], faults) as rollouts:
        stream = rollouts.run(jobs, EXPERT)
        first = next(stream)
        os.kill(pids(rollouts)[0], signal.SIGKILL)
        rest = list(stream)
        assert rollouts.backend.replaced == 1
        left = list(islice(rollouts.run(jobs, EXPERT), 1))  # left early: the busy ones are replaced
        assert [result.job for result in rollouts.run(jobs[:1], EXPERT)] == [jobs[0]]
    assert [result.job for result in [first, *rest]] == jobs
    assert left[0].summaries == first.summaries


def test_a_job_whose_processes_are_killed_from_outside_is_played_in_the_end(marks: Path) -> None:
    faults, jobs = Faults(), jobs_for(0, 1)
    with players(["trial/slow"], faults, RuntimeConfig(workers=1, attempts=2)) as rollouts:
        with killing(marks, 3):
            found = list(rollouts.run(jobs, EXPERT))
        assert rollouts.backend.replaced == 3
        assert (faults.seen, rollouts.quarantined) == ([], {})
    assert [result.job for result in found] == jobs


def test_an_exit_or_interrupt_of_a_plug_in_costs_its_task_alone(marks: Path) -> None:
    faults = Faults()
    with players(["trial/exits", "trial/interrupts", "trial/walk"], faults) as rollouts:
        found = list(rollouts.run([job for k in range(3) for job in jobs_for(k, 1)], EXPERT))
        assert rollouts.backend.replaced == 0
        assert [reason.rpartition(": ")[2] for _, reason in sorted(rollouts.quarantined.items())] == [
            "0",
            "KeyboardInterrupt",
        ]
    assert [result.job.task_index for result in found] == [2]


def test_a_task_that_fails_or_crashes_is_quarantined_and_the_others_are_played(marks: Path) -> None:
    faults = Faults()
    names = ["trial/raises", "trial/crashes", "trial/walk", "trial/raises-once"]
    jobs = [job for k in range(4) for job in jobs_for(k, 2)]
    with players(names, faults) as rollouts:
        found = list(rollouts.run(jobs, EXPERT))
        assert set(rollouts.quarantined) == {0, 1}
    assert [result.job.task_index for result in found] == [2, 2, 3, 3]


def test_an_evaluation_keeps_what_was_finished_and_lists_what_broke(marks: Path) -> None:
    names = ["trial/walk", "trial/raises", "trial/raises-once", "trial/crashes"]
    with players(names, Faults()) as rollouts:
        found = evaluated(rollouts, registry.task_set(names))
    healthy = registry.task_set(["trial/walk", "trial/raises-once"])
    here = LocalRollouts(healthy, RuntimeConfig())
    expected = evaluated(here, healthy)
    here.close()
    broken = Counter(one.task for one in found.broken)
    assert broken == {"trial/raises": 4, "trial/raises-once": 1, "trial/crashes": 4}
    assert [one.name for one in found.unmeasured] == ["trial/raises", "trial/crashes"]
    once = next(one for one in found.broken if one.task == "trial/raises-once")
    assert "decision 3 of copy" in once.cause and "ZeroDivisionError: the simulator's own words" in once.cause
    kept = [e for e in expected.episodes if (e.task, e.start) != (once.task, once.start)]
    assert list(found.episodes) == kept, "bit-equal to this process, where nothing broke"


def test_a_process_that_dies_between_two_runs_is_replaced(trial_folder: Path) -> None:
    faults = Faults()
    with players(["trial/walk"], faults, RuntimeConfig(workers=1)) as rollouts:
        first = list(rollouts.run(jobs_for(0, 1), EXPERT))
        os.kill(pids(rollouts)[0], signal.SIGKILL)
        # not by its state: its first thread may have ended before the others
        until(lambda: rollouts.backend._links[0].process.poll() is not None)
        again = list(rollouts.run(jobs_for(0, 1), EXPERT))
        assert rollouts.backend.replaced == 1
    assert faults.seen == [], "no job of the second run is to blame"
    assert [result.summaries for result in again] == [result.summaries for result in first]


def test_an_answer_of_a_process_that_was_replaced_is_dropped(trial_folder: Path) -> None:
    with players(["trial/slow"]) as rollouts:
        backend = rollouts.backend
        assert isinstance(backend, Processes)
        until(lambda: bool(backend.wait(0.1)) or all(slot.started for slot in backend.slots))
        backend.publish(EXPERT)
        (slot,) = backend.idle(1)[:1]
        backend.submit(slot, 7, Play(jobs_for(0, 1)[0]))
        assert backend.replace(slot, "the test wants it") == 1
        backend._inbox.put(((slot, 0), ({"reply": "value", "value": 1.0}, {})))
        events: list[Event] = []
        until(lambda: bool(events.extend(e for e in backend.wait(0.1) if e.slot == slot) or events))
    assert events == [Ready(slot, 1)]


def test_a_mistake_of_the_caller_is_raised_as_itself(trial_folder: Path) -> None:
    with players(["trial/refuses"]) as rollouts, pytest.raises(UnsupportedError, match="not offered"):
        list(rollouts.run(jobs_for(0, 1), EXPERT))


def test_a_suite_registered_by_hand_is_not_known_to_other_processes() -> None:
    registry.register("suite", "counter", CounterSuite())
    try:
        source = rollouts_for(TaskSet([counter_task()]), TWO)
        with pytest.raises(UnknownNameError, match="unknown suite 'counter'"):
            list(source.run(jobs_for(0, 1), EXPERT))
        source.close()
    finally:
        registry.unregister("suite", "counter")


def test_a_policy_with_weights_arrives_whole(trial_folder: Path) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(3), "e": np.zeros((0, 4))}
    stream = io.BytesIO()
    write_frame(stream, pack_frame({"kind": "x", "starts": (np.int64(3),)}, arrays))
    stream.seek(0)
    header, found = read_frame(io.BufferedReader(stream))  # type: ignore[type-var]
    assert header == {"kind": "x", "starts": [3]}
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_objects_do_not_travel() -> None:
    with pytest.raises(TypeError, match="'a' has type object; expected numbers or flags"):
        pack_frame({}, {"a": np.array([None])})
    with pytest.raises(TypeError, match="holds plain values; got PosixPath"):
        pack_frame({"config": Path("here")}, {})
    text = b'{"arrays": [["a", "|O", [1]]]}'
    stream = io.BufferedReader(io.BytesIO(len(text).to_bytes(8, "little") + text))  # type: ignore[type-var]
    with pytest.raises(IntegrityError, match="expected numbers or flags"):
        read_frame(stream)
    with pytest.raises(EOFError):
        read_frame(io.BufferedReader(io.BytesIO(b"")))  # type: ignore[type-var]
