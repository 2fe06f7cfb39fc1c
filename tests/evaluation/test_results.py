"""Aggregation of episodes, the result file and the refusal to compare what differs."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtrl.errors import ConfigError, ExistsError, IntegrityError
from mtrl.evaluation import (
    EpisodeResult,
    EvaluationResult,
    are_comparable,
    compare,
    from_episodes,
    paired_differences,
    read_result,
    require_comparable,
    wilson_interval,
    write_result,
)
from mtrl.tasks import Score, Split, TaskSet, start_id

from .samples import REACH, SWING, episode, evaluation, provenance, task, task_set


def again(
    result: EvaluationResult, episodes: list[EpisodeResult], tasks: TaskSet | None = None
) -> EvaluationResult:
    """The same evaluation of other episodes."""
    return from_episodes(
        tasks or task_set(),
        episodes,
        policy=result.policy,
        split=result.split,
        seed=7,
        provenance=provenance(),
    )


def test_summaries_by_hand() -> None:
    reach, swing = evaluation().tasks
    assert (reach.name, reach.episodes, swing.episodes) == (REACH, 4, 2)
    assert reach.success_any.rate == 0.75
    assert (reach.success_any.low, reach.success_any.high) == wilson_interval(3, 4)
    # starts 0 and 2 were solved to the end
    assert reach.success_end.rate == 0.5
    assert (reach.mean_return, reach.mean_length, reach.mean_first_success) == (100.0, 50.0, 11.0)
    assert reach.mean_score == 0.75
    # the second task is measured by its return: 100 of 1000
    assert (swing.mean_score, swing.success_any.rate) == (0.1, 0.5)


def test_means_weigh_tasks_alike() -> None:
    solved = evaluation(tasks=TaskSet([task(REACH), task(SWING)])).mean
    assert solved.success_any is not None
    assert solved.success_any.rate == solved.score == pytest.approx((0.75 + 0.5) / 2)
    assert solved.success_any.low < solved.success_any.rate < solved.success_any.high
    # the second task is measured by its return: its signal is no success
    mixed = evaluation().mean
    assert mixed.success_any is not None and mixed.success_any.rate == 0.75
    assert mixed.score == pytest.approx((0.75 + 0.1) / 2)
    raw = evaluation(tasks=TaskSet([task("gym/Any", Score("return"))])).mean
    assert (raw.success_any, raw.success_end, raw.score) == (None, None, None)


def test_unknown_first_success_is_left_out() -> None:
    result = evaluation(reach=(False,) * 4)
    assert result.tasks[0].mean_first_success is None


def test_order_of_episodes_does_not_matter() -> None:
    result = evaluation()
    shuffled = list(result.episodes)
    random.Random(0).shuffle(shuffled)
    assert again(result, shuffled) == result


def test_episodes_that_do_not_fit_are_refused() -> None:
    result = evaluation()
    good = list(result.episodes)
    with pytest.raises(ConfigError, match=r"split train; this is an evaluation on test starts"):
        again(result, [replace(good[0], start=start_id(Split.TRAIN, 0)), *good])
    with pytest.raises(ConfigError, match="evaluated twice"):
        again(result, [good[0], *good])
    with pytest.raises(ConfigError, match="not in the evaluated set"):
        again(result, [replace(good[0], task="a/b"), *good])
    with pytest.raises(ConfigError, match=f"no episodes for {SWING}"):
        again(result, good[:4])
    with pytest.raises(ConfigError, match="exceed the horizon of 500"):
        again(result, [replace(good[0], length=501), *good[1:]])


def test_impossible_episodes_are_refused() -> None:
    good = episode(REACH, 0, True)
    with pytest.raises(ConfigError, match="finite"):
        replace(good, episode_return=math.nan)
    with pytest.raises(ConfigError, match="success_end without success_any"):
        replace(good, success_any=False, first_success=None)
    with pytest.raises(ConfigError, match="first_success is 1 to 50"):
        replace(good, first_success=51)
    with pytest.raises(ConfigError, match="length at least 1"):
        replace(good, length=0)


def test_file_round_trip_is_exact_and_deterministic(tmp_path: Path) -> None:
    result = evaluation()
    first = write_result(tmp_path / "evaluations" / "a.json", result)
    assert read_result(first) == result
    second = write_result(tmp_path / "b.json", read_result(first))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.json", "b.json"]
    content = json.loads(first.read_text())
    assert list(content) == sorted(content)
    assert content["tasks"][0]["protocol_hash"] == task_set()[0].protocol_hash
    assert content["set_hash"] == task_set().protocol_hash
    assert len(content["episodes"]) == 6


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = write_result(tmp_path / "a.json", evaluation())
    with pytest.raises(ExistsError, match=r"a\.json"):
        write_result(path, evaluation(reach=(False,) * 4))
    assert read_result(path) == evaluation()
    write_result(path, evaluation(reach=(False,) * 4), overwrite=True)
    assert read_result(path) == evaluation(reach=(False,) * 4)


EDITS = {
    "a flipped outcome": (("episodes", 0, "success_any", False), r"episodes\[0\]"),
    "a better rate": (("tasks", 0, "success_any", "rate", 1.0), r"tasks\[0\]\.success_any\.rate"),
    "a better mean": (("mean", "score", 0.9), r"mean\.score"),
    "text for a number": (("episodes", 2, "length", "50"), r"episodes\[2\]\.length must be an integer"),
    "a boolean for a number": (("episodes", 2, "start", True), r"episodes\[2\]\.start must be an integer"),
    "no seed": (("seed", None), "seed must be an integer"),
    "an unknown split": (("split", "tests"), "split must be one of train, validation, test"),
    "another version": (("schema_version", 3), "schema_version must be 1 or 2"),
    "another kind of file": (("schema", "other"), "field schema must be"),
    "a task of no episodes": (("tasks", 1, "name", "a/b"), r"tasks\[1\]: no episodes of task 'a/b'"),
    "an episode of no task": (("episodes", 0, "task", "a/b"), r"episodes\[0\]\.task is 'a/b', not in tasks"),
    "a task twice": (("tasks", 1, "name", REACH), "tasks names a task twice"),
    "starts in another order": (
        ("episodes", 0, "start", 14),
        r"episodes\[1\] must come after the one before",
    ),
    "a start twice": (
        ("episodes", 1, "start", 2),
        r"episodes\[1\] must come after .* got start 2 .* start 2",
    ),
    "a start of another split": (("episodes", 0, "start", 0), r"episodes\[0\]\.start must be a test start"),
    "confidence": (("confidence", 2.0), "confidence must be between 0 and 1"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused_by_file_and_field(tmp_path: Path, edit: str) -> None:
    (*keys, last, value), message = EDITS[edit]
    path = write_result(tmp_path / "result.json", evaluation())
    content = json.loads(path.read_text())
    place = content
    for key in keys:
        place = place[key]
    place[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=message) as caught:
        read_result(path)
    assert str(path) in str(caught.value)


def test_a_file_whose_intervals_were_rounded_otherwise_is_read(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json", evaluation())
    content = json.loads(path.read_text())
    rate = content["tasks"][0]["success_any"]
    rate["low"] = math.nextafter(rate["low"], 1.0)
    path.write_text(json.dumps(content))
    assert read_result(path) == evaluation(), "what is shown follows from the episodes"
    rate["low"] += 1e-6
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"tasks\[0\]\.success_any\.low"):
        read_result(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json", evaluation())
    whole = path.read_text()
    for damaged in (whole[:-20], "", "[]", whole.replace("100.0", "NaN", 1)):
        path.write_text(damaged)
        with pytest.raises(IntegrityError, match=r"result\.json"):
            read_result(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(IntegrityError, match="UTF-8"):
        read_result(path)
    with pytest.raises(ConfigError, match="there is no file"):
        read_result(tmp_path / "absent.json")


def test_equal_protocols_and_starts_are_comparable() -> None:
    first, second = evaluation(), evaluation("student", "student", reach=(False,) * 4)
    require_comparable(first, second)
    reversed_set = TaskSet(tuple(reversed(task_set().tasks)))
    require_comparable(first, again(first, list(first.episodes), reversed_set))


def test_differences_are_named() -> None:
    result = evaluation()
    longer = TaskSet([task(REACH, horizon=400), task(SWING, Score("return", 0.0, 1000.0))])
    with pytest.raises(ConfigError, match=f"task '{REACH}' has protocol {task(REACH).protocol_hash} against"):
        require_comparable(result, evaluation("student", tasks=longer))
    with pytest.raises(ConfigError, match=f"starts of task '{REACH}' differ, only 'teacher' has 11"):
        require_comparable(result, evaluation("student", reach=(True, True, True)))
    with pytest.raises(ConfigError, match=f"only 'teacher' has {SWING}"):
        require_comparable(result, evaluation("student", tasks=TaskSet([task(REACH)])))
    with pytest.raises(ConfigError, match="split test against train"):
        require_comparable(result, replace(evaluation("student"), split=Split.TRAIN))
    assert not are_comparable(result, evaluation("student", tasks=longer))


def test_comparison_counts_pairs() -> None:
    teacher = evaluation(reach=(True, True, False, False), swing=(True, True))
    student = evaluation("student", "student", reach=(True, False, True, True), swing=(True, False))
    found = compare(student, teacher)
    # the second task is measured by its return
    assert (found.better, found.reference, found.gained, found.lost) == ("student", "teacher", 2, 1)
    expected = paired_differences([[1, 0, 1, 1]], [[1, 1, 0, 0]], np.random.default_rng(0), confidence=0.95)
    assert found.success == expected.mean and expected.mean.value == 0.25
