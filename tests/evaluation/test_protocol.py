"""Running an evaluation: equal starts for every policy, whole results or none."""

import dataclasses

import pytest

from mtrl import registry
from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.evaluation import EvaluationConfig, PolicyReference, Provenance, evaluate, require_comparable
from mtrl.rollout import JobResult, LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import Split, Task, TaskSet, split_of

from ..synthetic import CounterEnvironment, CounterSuite, counter_suite, counter_task

CONFIG = EvaluationConfig(episodes=4, copies=2)
NOWHERE = Provenance(command="none", created="2030-01-01T00:00:00Z", hardware="none")


def reference(label: str) -> PolicyReference:
    return PolicyReference(label=label, kind=label, identity=label, version=0)


def test_policies_meet_equal_test_starts() -> None:
    tasks = registry.task_set("point/obstacle")
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    seen: list[JobResult] = []
    expert, random = (
        evaluate(
            rollouts,
            tasks,
            PolicySnapshot(kind),
            CONFIG,
            reference(kind),
            NOWHERE,
            record=[0],
            on_result=seen.append,
        )
        for kind in ("expert", "random")
    )
    require_comparable(expert, random)
    assert [e.start for e in expert.episodes] == [e.start for e in random.episodes]
    assert all(split_of(e.start) is Split.TEST for e in expert.episodes)
    assert expert.mean.success_any.rate == 1.0 > random.mean.success_any.rate
    assert seen[0].episodes is not None, "asked to record"


def test_episodes_go_on_after_success() -> None:
    tasks = registry.task_set("point/obstacle")
    result = evaluate(
        LocalRollouts(tasks, RuntimeConfig()),
        tasks,
        PolicySnapshot("expert"),
        CONFIG,
        reference("expert"),
        NOWHERE,
    )
    assert {e.length for e in result.episodes} == {tasks[0].horizon_decisions}
    assert all(e.first_success is not None and e.first_success < e.length for e in result.episodes)


def test_a_task_set_that_ends_on_success_is_refused() -> None:
    task = dataclasses.replace(registry.task("point/obstacle"), end_on_success=True)
    tasks = TaskSet([task])
    with pytest.raises(ConfigError, match="never ends on success"):
        evaluate(
            LocalRollouts(tasks, RuntimeConfig()),
            tasks,
            PolicySnapshot("random"),
            CONFIG,
            reference("r"),
            NOWHERE,
        )


def test_a_quarantined_task_is_broken_throughout_and_the_others_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = CounterSuite.environment

    def only_short(suite: CounterSuite, task: Task) -> CounterEnvironment:
        if task.name == "counter/long":
            raise RuntimeError("no licence")
        return build(suite, task)

    monkeypatch.setattr(CounterSuite, "environment", only_short)
    with counter_suite():
        tasks = TaskSet([counter_task("counter/long"), counter_task("counter/short")])
        rollouts = LocalRollouts(tasks, RuntimeConfig(attempts=1), lambda fault, last: None)
        for _ in range(2):
            # a quarantine lasts, as that of an earlier evaluation of the same run
            found = evaluate(rollouts, tasks, PolicySnapshot("random"), CONFIG, reference("r"), NOWHERE)
            assert [one.name for one in found.unmeasured] == ["counter/long"]
            assert [one.start for one in found.broken] == [one.start for one in found.episodes]
            assert all("construction: RuntimeError: no licence" in one.cause for one in found.broken)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"evaluation.episodes=0"):
        EvaluationConfig(episodes=0)
    with pytest.raises(ConfigError, match="'validation' or 'test'"):
        EvaluationConfig(split="tset")
