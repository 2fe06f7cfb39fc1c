"""The figures of a run: success where it is measured, scores elsewhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from mtrl.evaluation import summarise
from mtrl.launch.compose import compose
from mtrl.pipeline import open_session
from mtrl.pipeline.evaluation_stages import evaluate_reference, show_results
from mtrl.tasks import TaskSet

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task, task_set

Capture = pytest.CaptureFixture[str]


def test_means_are_those_of_every_table(tmp_path: Path) -> None:
    outcomes = {REACH: [1, 1, 0, 1], SWING: [500.0, 700.0, 600.0, 600.0]}
    result = outcome_result("teacher", task_set(), outcomes)
    summary = summarise(tmp_path, [result], None, 1.0)
    assert (summary["teacher_success"], summary["teacher_success_tasks"]) == (0.75, "1 of 2")
    assert summary["teacher_score"] == result.mean.score == pytest.approx((0.75 + 0.6) / 2)
    assert "teacher_score_tasks" not in summary and "teacher_broken_episodes" not in summary
    # evaluated again on tasks measured by success alone, no figure of before stays
    solved = TaskSet([task(REACH)])
    again = summarise(tmp_path, [outcome_result("teacher", solved, {REACH: [1, 0]})], None, 1.0)
    assert {key: value for key, value in again.items() if key != "wall_seconds"} == {"teacher_success": 0.5}


def test_random_play_is_judged_once_on_the_same_starts(tmp_path: Path, capsys: Capture) -> None:
    words = ["tasks=[point/obstacle]", "evaluation.episodes=2", "evaluation.copies=2", f"output={tmp_path}"]
    config = compose([*words, "name=run", "evaluation.random=true"], command="train")
    with open_session(config, overwrite=False, resume=False, console=Console(width=100)) as session:
        played = outcome_result("teacher", session.tasks, {"point/obstacle": [1, 1]})
        beside = evaluate_reference(session, "random", played)
        returned = [episode.episode_return for episode in beside.episodes]
        file = session.run.evaluations / "random-0.json"
        written = file.stat().st_mtime_ns
        teacher = dataclasses.replace(
            beside, policy=dataclasses.replace(beside.policy, label="teacher", kind="teacher")
        )
        results = show_results(session, [teacher])
        assert file.stat().st_mtime_ns == written
    assert [result.policy.label for result in results] == ["teacher", "random"]
    assert [episode.episode_return for episode in results[1].episodes] == returned
    assert "random" in capsys.readouterr().out


def test_random_play_stays_out_unless_asked_for(tmp_path: Path) -> None:
    config = compose(["tasks=[point/obstacle]", f"output={tmp_path}", "name=run"], command="train")
    with open_session(config, overwrite=False, resume=False, console=Console(width=100)) as session:
        result = outcome_result("teacher", session.tasks, {"point/obstacle": [1, 0]})
        assert show_results(session, [result]) == [result]
        assert not list(session.run.evaluations.glob("random*"))
