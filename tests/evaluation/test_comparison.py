"""Differences between two policies on common starts: numbers, words, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mtrl.errors import ConfigError, IntegrityError
from mtrl.evaluation import (
    EvaluationResult,
    bootstrap_means,
    compare,
    comparison_table,
    doubts,
    exact_mcnemar,
    paired_differences,
    read_result,
    require_comparable,
    verdict,
    write_result,
)
from mtrl.evaluation.comparison import protocol_differences
from mtrl.tasks import Score, TaskSet, hash_of_protocol

from .outcomes import outcome_result
from .samples import REACH, SWING, evaluation, task, task_set

TEACHER = {REACH: [1, 0, 0, 1], SWING: [100.0, 200.0, 300.0, 400.0]}
STUDENT = {REACH: [1, 1, 1, 0], SWING: [150.0, 250.0, 350.0, 450.0]}


def pair() -> tuple[EvaluationResult, EvaluationResult]:
    return outcome_result("student", task_set(), STUDENT), outcome_result("teacher", task_set(), TEACHER)


def shown(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_differences_by_hand() -> None:
    found = compare(*pair())
    reach, swing = found.tasks
    assert (reach.name, reach.kind, reach.starts, reach.gained, reach.lost) == (REACH, "success", 4, 2, 1)
    assert reach.score is not None and reach.score.value == 0.25
    # +50 on every start, of a range of 1000: no uncertainty remains
    assert swing.score is not None
    assert (swing.score.value, swing.score.low, swing.score.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (swing.episode_return.value, swing.episode_return.low) == pytest.approx((50.0, 50.0))
    assert (swing.gained, swing.lost) == (None, None)
    assert found.score is not None and found.score.value == pytest.approx((0.25 + 0.05) / 2)
    assert found.starts == 8
    assert found.mcnemar == exact_mcnemar(2, 1)


def test_swapping_the_policies_turns_every_sign() -> None:
    student, teacher = pair()
    one, other = compare(student, teacher), compare(teacher, student)
    assert one.score is not None and other.score is not None
    assert one.score.value == pytest.approx(-other.score.value)
    assert (one.score.low, one.score.high) == pytest.approx((-other.score.high, -other.score.low), abs=0.02)
    assert (one.tasks[0].gained, one.tasks[0].lost) == (other.tasks[0].lost, other.tasks[0].gained)


def test_tasks_by_success_alone_score_as_they_succeed() -> None:
    both = TaskSet([task(REACH), task("metaworld/push-v3")])
    ours = outcome_result("a", both, {REACH: [1, 1, 0], "metaworld/push-v3": [1, 0, 1]})
    theirs = outcome_result("b", both, {REACH: [0, 1, 0], "metaworld/push-v3": [0, 0, 1]})
    found = compare(ours, theirs)
    assert found.score == found.success


def test_a_return_without_a_range_stays_out_of_the_mean() -> None:
    tasks = TaskSet([task(REACH), task("gym/Any", Score("return"))])
    ours = outcome_result("a", tasks, {REACH: [1, 1], "gym/Any": [500.0, 700.0]})
    theirs = outcome_result("b", tasks, {REACH: [0, 1], "gym/Any": [5.0, 7.0]})
    found = compare(ours, theirs)
    assert found.score is not None and found.score.value == 0.5
    assert found.tasks[1].score is None and found.tasks[1].episode_return.value == 594.0
    alone = TaskSet([task("gym/Any", Score("return"))])
    pair = [outcome_result(name, alone, {"gym/Any": [value]}) for name, value in (("a", 1.0), ("b", 2.0))]
    bare = compare(*pair)
    assert (bare.score, bare.mcnemar, bare.sequential) == (None, None, None)
    assert verdict(bare).startswith("a against b: -1.0 [-] in the return of gym/Any, 1 start; a single start")
    assert 'Score("return", low, high)' in verdict(bare)


def test_a_wider_level_contains_the_narrower() -> None:
    student, teacher = pair()
    narrow, wide = compare(student, teacher, confidence=0.5).score, compare(student, teacher).score
    assert narrow is not None and wide is not None
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_the_mean_of_paired_tasks_is_that_of_their_means() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 3, 40))
    found = paired_differences(list(first), list(second), np.random.default_rng(1))
    assert found.mean.value == pytest.approx(np.mean([task.value for task in found.tasks]))
    assert [task.value for task in found.tasks] == pytest.approx((first - second).mean(axis=1))
    for k, estimate in enumerate(found.tasks):
        half = 1.959964 * (first - second)[k].std() / np.sqrt(40)
        assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


def test_bootstrap_of_means_refuses_what_has_none() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        bootstrap_means([], np.random.default_rng(0))
    with pytest.raises(ConfigError, match="task 1: a mean needs"):
        bootstrap_means([[1.0], []], np.random.default_rng(0))


def test_the_table_has_a_column_per_policy_and_says_what_is_measured() -> None:
    student, teacher = pair()
    rows = shown(comparison_table(teacher, [compare(student, teacher)]))
    assert rows[0] == "Difference from teacher (test starts, 4 episodes a task)"
    assert rows[1].split() == ["task", "measured", "teacher", "student"]
    assert rows[3].split()[:5] == [REACH, "success,", "%", "50.0", "+25.0"] and rows[3].endswith("+2 -1")
    assert rows[4].split() == [SWING, "score,", "%", "25.0", "+5.0", "[+5,", "+5]"]
    assert rows[5].split() == ["return", "250.0", "+50.0", "[+50.0,", "+50.0]"]
    assert rows[6].split()[:6] == ["mean", "score", "score,", "%", "37.5", "+15.0"]


def test_the_verdict_says_whether_zero_is_excluded() -> None:
    tasks = TaskSet([task(REACH)])
    good, bad = (outcome_result(n, tasks, {REACH: [v] * 12}) for n, v in (("good", 1), ("bad", 0)))
    said = verdict(compare(good, bad))
    assert "+100.0 [+100.0, +100.0] points in the mean success of 1 task, 12 starts" in said
    assert "excludes 0: good is better" in said and "gained 12, lost 0" in said
    assert "p = 0.00049" in said, "2 / 2^12"
    assert "excludes 0: bad is worse" in verdict(compare(bad, good))
    same = replace(good, policy=replace(good.policy, label="same"))
    assert "includes 0: no difference is shown" in verdict(compare(good, same))


def test_the_field_of_the_protocol_that_differs_is_named() -> None:
    longer = replace(task(REACH), horizon_decisions=400, options=(("horizon", 400), ("sticky", 0.25)))
    shorter = replace(task(REACH), options=(("horizon", 500),))
    assert protocol_differences(longer.protocol, shorter.protocol) == (
        "horizon_decisions is 400 against 500",
        "options.horizon is 400 against 500",
        "options.sticky is 0.25 against not set",
    )
    ours, theirs = (outcome_result(n, TaskSet([t]), {REACH: [1]}) for n, t in (("a", longer), ("b", shorter)))
    with pytest.raises(ConfigError, match=r"horizon_decisions is 400 against 500, options\.horizon is 400"):
        require_comparable(ours, theirs)


def test_a_file_without_protocol_fields_is_read_and_written_back_alike(tmp_path: Path) -> None:
    path = write_result(tmp_path / "new.json", evaluation())
    assert read_result(path) == evaluation()
    content = json.loads(path.read_text())
    for entry in content["tasks"]:
        assert hash_of_protocol(entry.pop("protocol")) == entry["protocol_hash"]
    older = tmp_path / "older.json"
    older.write_text(json.dumps(content, sort_keys=True, indent=2) + "\n")
    found = read_result(older)
    assert found.tasks[0].protocol is None
    assert write_result(tmp_path / "again.json", found).read_bytes() == older.read_bytes()
    require_comparable(found, evaluation("student"))
    longer = evaluation("student", tasks=TaskSet([task(REACH, horizon=400), *task_set().tasks[1:]]))
    with pytest.raises(ConfigError, match="an older result file does not say which"):
        require_comparable(found, longer)


def test_edited_protocol_fields_are_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json", evaluation())
    content = json.loads(path.read_text())
    content["tasks"][0]["protocol"]["horizon_decisions"] = 400
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"tasks\[0\]\.protocol must be the fields"):
        read_result(path)


def test_doubts_name_versions_and_seeds() -> None:
    tasks = TaskSet([task(REACH)])
    first = outcome_result("a", tasks, {REACH: [1]}, packages={"numpy": "2.4", "torch": "2.13"})
    second = outcome_result("b", tasks, {REACH: [1]}, packages={"numpy": "2.3", "torch": "2.13"}, seed=5)
    assert doubts(first, second) == ("numpy 2.4 against 2.3", "evaluation.seed 0 against 5")
    assert doubts(first, first) == ()
