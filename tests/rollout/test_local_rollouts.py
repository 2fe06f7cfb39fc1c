"""Jobs in this process: order, retries, quarantine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mtrl.errors import TRACEBACK, ConfigError, EnvironmentFault, OutOfRangeError
from mtrl.rollout import (
    Acting,
    EpisodeJob,
    FaultText,
    JobResult,
    LocalRollouts,
    PolicySnapshot,
    RuntimeConfig,
)
from mtrl.tasks import Option, TaskSet

from ..synthetic import CounterSuite, counter_suite, counter_task

RANDOM = PolicySnapshot("random")


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


def tasks_of(**options: Option) -> TaskSet:
    """The long task as it is, and the short one with the options."""
    short = counter_task("counter/short", **options)  # type: ignore[arg-type]
    return TaskSet([counter_task("counter/long"), short])


def jobs_of(*rows: tuple[int, int]) -> list[EpisodeJob]:
    return [EpisodeJob(k, (start,), seed=0, acting=Acting(), copies=1) for k, start in rows]


def outline(results: Iterator[JobResult]) -> list[tuple[int, int]]:
    return [(result.job.task_index, result.summaries[0].start) for result in results]


def test_results_come_in_job_order(suite: CounterSuite) -> None:
    order = [(1, 8), (0, 2), (1, 2), (0, 5)]
    shown: list[JobResult] = []
    rollouts = LocalRollouts(tasks_of(), RuntimeConfig())
    results = list(rollouts.run(jobs_of(*order), RANDOM, on_result=shown.append))
    assert outline(iter(results)) == order
    assert shown == results
    assert rollouts.quarantined == {}
    rollouts.close()
    assert all(environment.closed for environment in suite.built)


def test_a_task_that_keeps_failing_is_quarantined_and_the_others_go_on(suite: CounterSuite) -> None:
    heard: list[tuple[str, bool]] = []
    rollouts = LocalRollouts(
        tasks_of(fail_at=2), RuntimeConfig(attempts=3), lambda fault, last: heard.append((fault.task, last))
    )
    order = [(0, 2), (1, 2), (0, 5), (1, 5), (0, 8)]
    assert outline(rollouts.run(jobs_of(*order), RANDOM)) == [(0, 2), (0, 5), (0, 8)]
    assert heard == [("counter/short", False), ("counter/short", False), ("counter/short", True)]
    assert list(rollouts.quarantined) == [1]
    assert "the arm fell off" in rollouts.quarantined[1]
    # a quarantine lasts: later runs leave the task out at once
    assert outline(rollouts.run(jobs_of((1, 2), (0, 2)), RANDOM)) == [(0, 2)]
    assert len(heard) == 3


def test_a_fault_that_passes_costs_nothing(suite: CounterSuite) -> None:
    heard: list[bool] = []
    rollouts = LocalRollouts(tasks_of(), RuntimeConfig(attempts=3), lambda fault, last: heard.append(last))
    undisturbed = [result.summaries for result in rollouts.run(jobs_of((1, 2), (1, 5)), RANDOM)]
    suite.failures = 2
    assert [r.summaries for r in rollouts.run(jobs_of((1, 2), (1, 5)), RANDOM)] == undisturbed
    assert heard == [False, False]
    assert rollouts.quarantined == {}


def test_a_fault_is_logged_with_its_traceback_once(
    suite: CounterSuite, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = LocalRollouts(tasks_of(fail_at=1), RuntimeConfig(attempts=3))
    with caplog.at_level(logging.WARNING):
        assert outline(rollouts.run(jobs_of((1, 2)), RANDOM)) == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    said = [record.getMessage() for record in caplog.records]
    assert all("RuntimeError: the arm fell off" in text for text in said)
    assert ["Traceback" in text for text in said] == [True, False, False]
    assert [len(text.splitlines()) for text in said[1:]] == [1, 1]
    assert said[2].startswith("task counter/short is quarantined: ")
    assert rollouts.quarantined == {1: said[1]}


def test_a_quarantine_without_an_attempt_before_it_shows_the_traceback(
    suite: CounterSuite, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = LocalRollouts(tasks_of(fail_at=1), RuntimeConfig(attempts=1))
    assert outline(rollouts.run(jobs_of((1, 2)), RANDOM)) == []
    assert len(caplog.records) == 1 and "Traceback" in caplog.records[0].getMessage()


def test_another_fault_of_the_task_is_told_in_full() -> None:
    words = FaultText()
    told = [
        words.of(EnvironmentFault("a/b", f"decision {step}", f"{TRACEBACK}  File x\n{reason}\n"))
        for step, reason in ((1, "OSError: one"), (2, "OSError: one"), (3, "OSError: two"))
    ]
    assert [TRACEBACK in text for text in told] == [True, False, True]
    assert told[1] == "environment of task 'a/b' failed at decision 2: OSError: one"


def test_a_handler_may_end_the_run(suite: CounterSuite) -> None:
    def strict(fault: EnvironmentFault, last: bool) -> None:
        raise fault

    rollouts = LocalRollouts(tasks_of(fail_at=1), RuntimeConfig(), strict)
    with pytest.raises(EnvironmentFault):
        list(rollouts.run(jobs_of((1, 2)), RANDOM))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"kind": "cloud"}, ConfigError, "'local' or 'ray'; got 'cloud'"),
        ({"kind": "ray", "workers": 2}, ConfigError, "set runtime.actors instead"),
        ({"workers": -1}, OutOfRangeError, "runtime.workers=-1"),
        ({"actors": -1}, OutOfRangeError, "runtime.actors=-1"),
        ({"attempts": 0}, OutOfRangeError, "runtime.attempts=0"),
        ({"job_timeout_seconds": 0.0}, OutOfRangeError, "runtime.job_timeout_seconds=0.0"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RuntimeConfig(**settings)  # type: ignore[arg-type]
