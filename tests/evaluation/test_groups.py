"""Groups of runs that differ in their seed, and what a run's folder holds."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mtrl.errors import ConfigError
from mtrl.evaluation import (
    EvaluationResult,
    RunGroup,
    compare_groups,
    group_table,
    group_verdict,
    independent_bootstrap,
    interquartile_mean,
    mean_score,
    newest_results,
    probability_of_improvement,
    run_group,
    stratified_bootstrap,
    summarise_group,
    write_result,
)
from mtrl.evaluation.aggregates import Scores
from mtrl.tasks import Score, TaskSet

from .outcomes import outcome_result
from .samples import REACH, SWING, task

TASKS = TaskSet([task(REACH), task("gym/Any", Score("return")), task(SWING, Score("return", 0.0, 1000.0))])


def one(identity: str, solved: int, swing: float) -> EvaluationResult:
    outcomes = {REACH: [1] * solved + [0] * (4 - solved), "gym/Any": [7.0], SWING: [swing, swing]}
    return outcome_result("student", TASKS, outcomes, identity=identity)


def weak() -> RunGroup:
    return run_group("weak", [one("a", 1, 200.0), one("b", 2, 300.0), one("c", 1, 100.0)])


def strong() -> RunGroup:
    return run_group("strong", [one("d", 4, 200.0), one("e", 3, 800.0)])


def test_scores_are_a_table_of_runs_and_normalised_tasks() -> None:
    assert weak().task_names == (REACH, SWING)
    assert np.allclose(weak().scores(), [[0.25, 0.2], [0.5, 0.3], [0.25, 0.1]])
    assert np.allclose(weak().scores([SWING]), [[0.2], [0.3], [0.1]])


def test_intervals_are_those_of_whole_runs() -> None:
    scores = weak().scores()
    rows = stratified_bootstrap(scores.mean(axis=1, keepdims=True), mean_score, np.random.default_rng(0))
    found = summarise_group(weak()).mean
    assert (found.low, found.high) == pytest.approx((rows.low, rows.high))
    assert stratified_bootstrap(scores, mean_score, np.random.default_rng(0)).high < found.high
    reference = compare_groups(strong(), weak()).mean

    def difference(first: Scores, second: Scores) -> float:
        return mean_score(first) - mean_score(second)

    ours, theirs = (group.scores().mean(axis=1, keepdims=True) for group in (strong(), weak()))
    one = independent_bootstrap(ours, theirs, difference, np.random.default_rng(0))
    assert (reference.low, reference.high) == pytest.approx((one.low, one.high))


def test_a_summary_holds_the_aggregates_of_that_table() -> None:
    found = summarise_group(weak())
    assert dict(found.tasks)[REACH].value == pytest.approx(1 / 3)
    assert found.mean.value == pytest.approx((1 / 3 + 0.2) / 2)
    assert found.interquartile_mean.value == interquartile_mean(weak().scores())
    assert found.optimality_gap.value == pytest.approx(1 - found.mean.value)
    assert found.mean.low <= found.mean.value <= found.mean.high
    assert found == summarise_group(weak()), "the same seed, the same intervals"


def test_groups_are_compared_run_by_run() -> None:
    found = compare_groups(strong(), weak())
    assert found.runs == (2, 3)
    # reach: every strong run wins; swing: 200 against 200, 300, 100 is half of three, 800 wins
    assert found.improvement.value == pytest.approx((1.0 + (1.5 + 3) / 6) / 2)
    assert found.improvement.value == probability_of_improvement(strong().scores(), weak().scores())
    assert found.mean.value == pytest.approx(strong().scores().mean() - weak().scores().mean())
    assert dict(found.tasks)[SWING].value == pytest.approx(0.5 - 0.2)
    back = compare_groups(weak(), strong())
    assert back.improvement.value == pytest.approx(1 - found.improvement.value)


def test_the_order_of_the_tasks_does_not_matter() -> None:
    turned = TaskSet(tuple(reversed(TASKS.tasks)))
    outcomes = {REACH: [1, 1, 1, 0], "gym/Any": [7.0], SWING: [500.0, 500.0]}
    other = run_group("other", [outcome_result("s", turned, outcomes, identity=name) for name in "xy"])
    assert dict(compare_groups(other, weak()).tasks)[SWING].value == pytest.approx(0.3)


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a' has 1 run; intervals over runs need at least two"):
        run_group("a", [one("a", 1, 1.0)])
    with pytest.raises(ConfigError, match="holds the policy same twice"):
        run_group("a", [one("same", 1, 1.0), one("same", 2, 1.0)])
    shorter = outcome_result("s", TASKS, {REACH: [1], "gym/Any": [7.0], SWING: [1.0]}, identity="z")
    with pytest.raises(ConfigError, match="cannot be compared"):
        run_group("a", [one("a", 1, 1.0), shorter])


def test_without_a_score_range_returns_are_compared_task_by_task() -> None:
    bare = TaskSet([task("gym/Any", Score("return")), task("gym/Other", Score("return"))])

    def runs(name: str, *levels: float) -> RunGroup:
        played = [{"gym/Any": [level, level + 2], "gym/Other": [-level]} for level in levels]
        return run_group(
            name, [outcome_result(name, bare, one, identity=f"{name}{k}") for k, one in enumerate(played)]
        )

    strong, weak_runs = runs("strong", 10.0, 12.0), runs("weak", 1.0, 3.0)
    found = summarise_group(strong)
    # mean over runs of (10 + 12) / 2 and (12 + 14) / 2
    assert dict(found.tasks)["gym/Any"].value == 12.0 and found.mean is None and found.optimality_gap is None
    compared = compare_groups(strong, weak_runs)
    assert dict(compared.tasks)["gym/Any"].value == 9.0 and compared.mean is None
    # better in one task, worse in the other, by every pair of runs
    assert compared.improvement.value == 0.5
    text = io.StringIO()
    Console(file=text, width=80).print(group_table([found, summarise_group(weak_runs)], [compared]))
    assert "Return (2 runs a group)" in text.getvalue() and "optimality" not in text.getvalue()


def test_the_table_and_the_verdict_warn_of_few_runs() -> None:
    found = compare_groups(strong(), weak())
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(group_table([summarise_group(weak()), summarise_group(strong())], [found]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    rows = {line.strip().split("  ")[0]: line for line in text.splitlines() if line.strip()}
    assert "33.3 [" in rows[REACH] and "87.5 [" in rows[REACH]
    assert rows["probability of improvement"].split()[3] == "reference"
    assert "fewer than 5 runs" in text and "gym/Any" not in text
    assert "with probability 0.88" in group_verdict(found) and "2 against 3 runs" in group_verdict(found)


def test_the_newest_result_of_each_policy_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no evaluation; make one with: mtrl evaluate"):
        newest_results(tmp_path)
    teacher = one("t", 1, 1.0)
    for name, label, created in (
        ("b-1", "bc", "2031-05-04T12:00:00Z"),
        ("a-9", "bc", "2031-05-05T12:00:00Z"),
        ("c-1", "teacher", "2031-05-04T12:00:00Z"),
        ("c-2", "teacher", "2031-05-04T12:00:00Z"),
    ):
        origin = replace(teacher.provenance, created=created)
        policy = replace(teacher.policy, label=label, identity=name)
        path = tmp_path / "evaluations" / f"{name}.json"
        write_result(path, replace(teacher, policy=policy, provenance=origin))
    found = newest_results(tmp_path)
    assert {label: kept.path.stem for label, kept in found.items()} == {"bc": "a-9", "teacher": "c-2"}
