"""The report of tasks measured by their return: scores and returns, never a success that nobody measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mtrl.evaluation import compare, read_result, write_result
from mtrl.evaluation.statistics import Estimate
from mtrl.evaluation.table import return_means, score_means
from mtrl.report import write_report
from mtrl.report.bar_charts import score_scale
from mtrl.report.figures import Bar, bars_figure
from mtrl.report.scale import Scale, percent
from mtrl.tasks import Score, TaskSet

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task
from .pages import Page, bar_widths, shapes

PLAIN = "gym/Any"
MIXED = TaskSet([task(REACH), task(SWING, Score("return", 0.0, 1000.0)), task(PLAIN, Score("return"))])
SCORED = TaskSet(
    [task(SWING, Score("return", 0.0, 1000.0)), task("atari/Pong", Score("return", -20.0, 15.0))]
)
TEACHER = {REACH: [1, 1, 1, 0], SWING: [400, 500, 450, 450], PLAIN: [-2, -4, -2, -4]}
STUDENT = {REACH: [1, 1, 0, 0], SWING: [300, 500, 300, 500], PLAIN: [-8, -8, -8, -8]}


def reported(
    root: Path, tasks: TaskSet, outcomes: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Page, list[str]]:
    """The page of a run with one result per label, and the widths of the bars on it."""
    for label, values in outcomes.items():
        write_result(root / f"evaluations/{label}.json", outcome_result(label, tasks, values))
    page = write_report(root)
    return Page(page), bar_widths(page)


def test_every_kind_of_task_has_a_chart_of_its_own(tmp_path: Path) -> None:
    page, widths = reported(tmp_path / "run", MIXED, {"teacher": TEACHER, "a-student": STUDENT})
    said = page.texts["success"]
    assert [said.count(f"{name} by task") for name in ("Results", "Success")] == [1, 0]
    places = [said.index(part) for part in ("Share of episodes", "own range", "without a range")]
    assert places == sorted(places)
    assert widths == [
        # success: the mean of the only task measured by it, then that task
        "75.00%", "50.00%", "75.00%", "50.00%",
        # scores: (0.75 + 0.45) / 2 and (0.5 + 0.4) / 2, then the task with a range
        "60.00%", "45.00%", "45.00%", "40.00%",
        # returns -3 and -8 on an axis from -8 to 0
        "37.50%", "100.00%",
    ]  # fmt: skip


def test_scores_and_returns_stand_beside_their_bars_as_in_the_table_on_the_terminal(tmp_path: Path) -> None:
    page, _ = reported(tmp_path / "run", MIXED, {"teacher": TEACHER})
    result = read_result(tmp_path / "run/evaluations/teacher.json")
    scores = score_means(result)
    assert scores is not None
    swing = scores.tasks[SWING]
    said = " ".join(page.texts["success"].split())
    returned = return_means(result).tasks[SWING]
    assert f"45.0% [{100 * swing.low:.1f}, {100 * swing.high:.1f}] 450.0 [{returned.low:.0f}, " in said
    assert "−3 [−4, −2]" in said, "a return without a range, with its interval"


def test_a_task_without_success_shows_none(tmp_path: Path) -> None:
    page, _ = reported(tmp_path / "run", MIXED, {"teacher": TEACHER})
    rows = page.of_table("results")[1:]
    scores = score_means(read_result(tmp_path / "run/evaluations/teacher.json"))
    assert scores is not None
    swing, plain = rows[2], rows[3]
    assert swing[0][3:5] == ["–", "–"]
    low, high = (round(100 * end, 1) for end in (scores.tasks[SWING].low, scores.tasks[SWING].high))
    assert swing[0][5] == f"45.0% [{low}, {high}]"
    assert swing[1] == [0.45, 450.0, 50.0], "score, return, length"
    assert plain[0][3:6] == ["–", "–", "–"]
    assert plain[1] == [-3.0, 50.0], "no score: a return without a range"
    # the mean's success is that of the one task measured by it
    assert rows[0][0][3] == rows[1][0][3] == "75.0% [30.1, 95.4]"
    assert rows[0][1][-1] == pytest.approx(0.6)


def test_a_set_without_success_speaks_of_none(tmp_path: Path) -> None:
    values = {SWING: [400, 500], "atari/Pong": [-20, -20]}
    page, _ = reported(tmp_path / "run", SCORED, {"teacher": values, "a-student": values})
    assert "uccess" not in page.texts["success"]
    assert page.of_table("results")[0][0] == ["Task", "Policy", "Episodes", "Score", "Return", "Length"]
    assert page.of_table("success")[0][0] == ["Policy", "Against", "Difference", "Interval"]


def test_paired_differences_are_those_of_the_scores(tmp_path: Path) -> None:
    page, _ = reported(tmp_path / "run", MIXED, {"teacher": TEACHER, "a-student": STUDENT})
    teacher, student = (read_result(tmp_path / f"run/evaluations/{n}.json") for n in ("teacher", "a-student"))
    found = compare(student, teacher).score
    assert found is not None
    cells, values = page.of_table("success")[1]
    assert cells[:3] == ["a-student", "teacher", "−15.0"]
    assert values == [found.value]
    # returns have no starts that are won or lost
    assert cells[4:] == ["0", "1"]


def test_returns_without_a_range_give_no_mean(tmp_path: Path) -> None:
    tasks = TaskSet([task(PLAIN, Score("return"))])
    page, widths = reported(tmp_path / "run", tasks, {"teacher": {PLAIN: [1, 3]}, "bc": {PLAIN: [1, 1]}})
    assert widths == ["66.67%", "33.33%"], "2 and 1 on an axis from 0 to 3"
    assert "no task has a normalised score" in page.texts["success"]
    assert "–" in page.of_table("results")[1][0][3]


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    hostile = 'evil/<script>alert("1")</script><img src=x onerror=alert(2)>'
    tasks = TaskSet([task(hostile, Score("return")), task(f"{hostile}2", Score("return", 0.0, 2.0))])
    values = {name: [1.0, 2.0] for name in tasks.names}
    page, widths = reported(tmp_path / "run", tasks, {"teacher": values, "bc": values})
    assert len(widths) == 6
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert page.texts["success"].count(f"mean score: without {hostile}: a return without a range") == 1


def test_versions_are_drawn_by_score_where_returns_decide(tmp_path: Path) -> None:
    for version, value in ((0, 100.0), (50, 900.0)):
        result = outcome_result("teacher", SCORED, {SWING: [value] * 2, "atari/Pong": [15.0] * 2})
        policy = type(result.policy)("teacher", "teacher", f"{version}", version)
        result = type(result)(**{**vars(result), "policy": policy})
        write_result(tmp_path / f"run/evaluations/{version}.json", result)
    page = Page(write_report(tmp_path / "run"))
    assert "mean score by version" in page.texts["success"]


def test_a_bar_grows_from_zero_to_either_side() -> None:
    scale = Scale(-0.5, 1.5, (-0.5, 0.0, 0.5, 1.0, 1.5))
    bars = [
        Bar("a", "s1", Estimate(1.0, 0.5, 1.5), "100%", "[50, 150]"),
        Bar("b", "s2", Estimate(-0.25, -0.5, 0.0), "-25.0%", "[-50, 0]", "return 7"),
    ]
    drawn = bars_figure("a/b", bars, scale, (1.0,))
    (first,), (second,) = (shapes(drawn, fill=f"var(--{colour})") for colour in ("s1", "s2"))
    assert (first.box, second.box) == ((250, 4, 500, 10), (125, 22, 125, 10))
    (mark,) = shapes(drawn, stroke="var(--soft)")
    assert mark.box == (750, 0, 0, 36)
    assert second.title == "a/b, b: -25.0% [-50, 0] return 7"


def test_a_score_scale_holds_nothing_everything_and_every_interval() -> None:
    assert score_scale([Estimate(0.5, 0.4, 0.6)]).ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    wide = score_scale([Estimate(7.0, -0.4, 7.3), Estimate(0.1, 0.0, 0.2)])
    assert (wide.low, wide.high) == (-2.0, 8.0)


def test_a_task_far_beyond_its_range_leaves_the_others_their_scale(tmp_path: Path) -> None:
    # 50% and 900%: the first on a scale from 0 to 100%, the second on one to 1,000%
    values = {SWING: [500.0, 500.0], "atari/Pong": [295.0, 295.0]}
    page, widths = reported(tmp_path / "run", SCORED, {"teacher": values})
    assert widths == ["95.00%", "50.00%", "90.00%"], "the mean, 475% of 500%, then the tasks"
    rows = [a["class"] for tag, a in page.elements if tag == "div" and "bar-row" in (a.get("class") or "")]
    assert rows[1:] == ["bar-row mean own", "bar-row", "bar-row bar-axis", "bar-row own"]
    said = " ".join(page.texts["success"].split())
    assert "Rows with numbers below them have a scale of their own." in said
    assert (
        "Rows with numbers"
        not in reported(tmp_path / "near", SCORED, {"bc": {**values, "atari/Pong": [0]}})[0].texts["success"]
    )


def test_percent_says_small_and_negative_shares() -> None:
    shares = (0.0, 1.0, 0.455, 0.0012, -0.034, 12.5)
    assert [percent(share) for share in shares] == ["0%", "100%", "45.5%", "0.12%", "−3.4%", "1,250.0%"]
