"""The figures of a run: success where it is measured, scores elsewhere."""

from __future__ import annotations

from pathlib import Path

from mtrl.launch.summary import summarise

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task_set


def test_tasks_judged_by_their_return_have_a_score_and_no_success(tmp_path: Path) -> None:
    outcomes = {REACH: [1, 1, 0, 1], SWING: [500.0, 700.0, 600.0, 600.0]}
    summary = summarise(tmp_path, [outcome_result("teacher", task_set(), outcomes)], None, 1.0)
    assert summary["teacher_success"] == 0.75
    assert summary["teacher_score"] == 0.6
