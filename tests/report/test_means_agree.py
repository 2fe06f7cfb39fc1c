"""A mean over tasks is one number under one name wherever it is printed."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from mtrl.evaluation import (
    EvaluationResult,
    read_result,
    results_table,
    summarise,
    write_record,
    write_result,
)
from mtrl.launch.main import main
from mtrl.report import write_report
from mtrl.tasks import Score, TaskSet

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task
from .pages import Page

POINT, PLAIN = "point/obstacle", "gym/Plain"
MIXED = TaskSet(
    [task(REACH), task(POINT), task(SWING, Score("return", 0.0, 1000.0)), task(PLAIN, Score("return"))]
)
"""Two tasks measured by success, one of them with several modes, one with a score, and one without."""
SOLVED = TaskSet([task(REACH), task(POINT)])
OUTCOMES = {
    "teacher": {REACH: [1, 1, 1, 0], POINT: [1, 1, 0, 0], SWING: [500, 300, 400, 800], PLAIN: [7, 8, 9, 9]},
    "bc": {REACH: [1, 1, 1, 1], POINT: [0, 1, 0, 0], SWING: [100, 300, 400, 100], PLAIN: [-7, 8, 0, 1]},
}
EXPECTED = {
    ("teacher", "success"): (0.75 + 0.5) / 2,
    ("teacher", "score"): (0.75 + 0.5 + 0.5) / 3,
    ("bc", "success"): (1.0 + 0.25) / 2,
    ("bc", "score"): (1.0 + 0.25 + 0.225) / 3,
}


def written(run: Path, tasks: TaskSet) -> list[EvaluationResult]:
    """A run's evaluations, modes, summary and report."""
    results = []
    for label, outcomes in OUTCOMES.items():
        results.append(outcome_result(label, tasks, outcomes))
        write_result(run / f"evaluations/{label}-0.json", results[-1])
        modes = {POINT: {"successes": {"left": 1, "right": 1}}}
        write_record(run / "modes" / f"{label}.json", modes)
    summarise(run, results, None, 1.0)
    write_report(run)
    return results


def of_table(results: list[EvaluationResult]) -> dict[tuple[str, str], float]:
    """(policy, "success" or "score") -> the percentage of the terminal's table."""
    console = Console(file=io.StringIO(), width=200)
    console.print(results_table(results))
    assert isinstance(console.file, io.StringIO)
    found = {}
    for line in console.file.getvalue().splitlines():
        row = re.match(r"\s*mean (success|score) [^:]*?((?:-?[\d.]+ \[[^]]*\]\s*)+)$", line)
        if row:
            cells = re.findall(r"(-?[\d.]+) \[", row[2])
            assert len(cells) == len(results)
            found |= {(one.policy.label, row[1]): float(c) for one, c in zip(results, cells, strict=True)}
    return found


def of_cards(page: Page) -> dict[tuple[str, str], float]:
    """The same of the report's cards."""
    cards = re.findall(r"(\w+) mean (success|score)(-?[\d.]+)%", page.texts["headline"])
    return {(label.lower(), figure): float(value) for label, figure, value in cards}


def of_report_table(page: Page) -> dict[tuple[str, str], float]:
    """The same of the report's table of results."""
    heads, *rows = [cells for cells, _ in page.of_table("results")]
    found = {}
    for cells in rows[:2]:
        # the name of the row spans both policies
        named = dict(zip(heads[-len(cells) :] if cells[0] in OUTCOMES else heads, cells, strict=False))
        for figure in ("success", "score"):
            found[named["Policy"], figure] = float(named[figure.capitalize()].split("%")[0])
    return found


def of_charts(page: Page) -> dict[tuple[str, str], float]:
    """The same of the mean rows of the report's charts, policies in the legend's order."""
    found = {}
    for figure in ("success", "score"):
        chart = re.search(rf"mean {figure}\s+((?:[\d.]+% \[.*?\]\s+)+)", page.texts["success"])
        assert chart is not None
        values = re.findall(r"([\d.]+)% \[", chart[1])
        found |= {(label, figure): float(v) for label, v in zip(OUTCOMES, values, strict=True)}
    return found


def test_every_mean_of_a_mixed_run_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = written(tmp_path / "run", MIXED)
    percent = {key: round(100 * value, 1) for key, value in EXPECTED.items()}
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    for (label, figure), value in EXPECTED.items():
        assert summary[f"{label}_{figure}"] == pytest.approx(value, abs=1e-12)
    assert summary["bc_success_tasks"] == "2 of 4" and summary["bc_score_tasks"] == "3 of 4"
    assert summary["point_bc_success"] == 0.25
    page = Page(tmp_path / "run/report.html")
    for found in (of_table(results), of_cards(page), of_report_table(page), of_charts(page)):
        assert found == pytest.approx(percent, abs=1e-9)
    files = [read_result(tmp_path / f"run/evaluations/{label}-0.json") for label in OUTCOMES]
    for result in files:
        label = result.policy.label
        assert result.mean.success_any is not None and result.mean.score is not None
        assert math.isclose(result.mean.success_any.rate, EXPECTED[label, "success"])
        assert math.isclose(result.mean.score, EXPECTED[label, "score"])
    assert main(["compare", str(tmp_path / "run/evaluations"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    for policy in compared["policies"]:
        assert math.isclose(policy["score"], EXPECTED[policy["label"], "score"])
        assert math.isclose(policy["success"], EXPECTED[policy["label"], "success"])
    (pair,) = compared["comparisons"]
    sign = 1 if pair["better"] == "teacher" else -1
    for figure in ("success", "score"):
        difference = EXPECTED["teacher", figure] - EXPECTED["bc", figure]
        assert math.isclose(pair[figure]["value"], sign * difference)
    said = page.texts["success"]
    assert "mean success: of the 2 of 4 tasks that are measured by success" in said
    assert f"mean score: without {PLAIN}: a return without a range" in said


def test_where_success_alone_is_measured_there_is_one_mean(tmp_path: Path) -> None:
    """The point task is in the mean of the cards as it is in the table's."""
    results = written(tmp_path / "run", SOLVED)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["bc_success"] == 0.625 and not any("_score" in key or "_tasks" in key for key in summary)
    percent = {key: round(100 * value, 1) for key, value in EXPECTED.items() if key[1] == "success"}
    page = Page(tmp_path / "run/report.html")
    assert of_cards(page) == of_table(results) == percent
    report = of_report_table(page)
    assert {key: report[key] for key in percent} == percent
    # the score of a success is the success
    assert report["bc", "score"] == report["bc", "success"]
