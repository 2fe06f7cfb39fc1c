"""The report of a run that learned while it collected: before and after, panels, shares, torsos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from mtrl.evaluation import EvaluationResult, write_result
from mtrl.report import learning_table, write_report
from mtrl.report.chart import COLOURS, TOP
from mtrl.report.curves import Curve, read_curves
from mtrl.report.learning import FIRST, Learnt, learnt
from mtrl.report.learning_figures import MANY_TASKS, RETURN_HEIGHT, lines_figure, shares_figure
from mtrl.report.scale import Scale
from mtrl.report.task_curves import GroupedCurves, NamedCurve, grouped
from mtrl.tasks import Score, TaskSet

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task
from .pages import Page, shapes

TASKS = TaskSet([task(REACH), task(SWING, Score("return", 0.0, 1000.0))])
TRAINED = {REACH: [1.0] * 8, SWING: [470.0, 490.0, 480.0, 480.0]}
RANDOM = {REACH: [0.0] * 8, SWING: [20.0, 26.0, 23.0, 23.0]}


def record(step: int, swing: float, reach: float, solved: float, **others: float) -> dict[str, float]:
    """A line of metrics.jsonl; a keyword's double underscore stands for a slash."""
    named = {name.replace("__", "/"): value for name, value in others.items()}
    returns = {f"return/{SWING}": swing, f"return/{REACH}": reach}
    return {"step": step, **returns, f"success/{REACH}": solved, f"success/{SWING}": 0.0, **named}


LINES = [
    record(1000, 30.0, 100.0, 0.0),
    record(2000, 200.0, 800.0, 0.5, updates=10.0),
    record(3000, 400.0, 900.0, 0.75, updates=20.0)
    | {f"evaluation_return/{SWING}": 450.0, f"critic_loss/{SWING}": 0.5, f"critic_loss/{REACH}": 0.25},
]


def written(
    run: Path, lines: Sequence[Mapping[str, float]] = LINES, **outcomes: Mapping[str, Sequence[float]]
) -> Path:
    """A run directory with metrics and an evaluation per label."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for label, values in outcomes.items():
        write_result(run / f"evaluations/{label}.json", outcome_result(label, TASKS, values))
    return run


def read(run: Path) -> GroupedCurves:
    return grouped(read_curves(run / "metrics.jsonl", "metrics.jsonl"))


def learned(run: Path, *results: EvaluationResult) -> Learnt:
    found = learnt(read(run).tasks, results)
    assert found is not None
    return found


def svgs(page: Page, words: str) -> list[str]:
    """What the figures say whose label holds `words`."""
    labels = [a.get("aria-label") or "" for tag, a in page.elements if tag == "svg"]
    return [label for label in labels if words in label]


def chart(text: str, label: str) -> str:
    """The chart of a page whose label begins so."""
    return (
        text[text.rindex("<svg", 0, text.index(f'aria-label="{label}')) :].partition("</svg>")[0] + "</svg>"
    )


def test_every_curve_stands_in_one_part(tmp_path: Path) -> None:
    extra = {f"share/{REACH}": 0.5, "torso/critic/gate_entropy/0": 0.5, "torso/critic/gate_entropy/1": 0.25}
    extra |= {"torso/actor/dormant_units": 0.0, "gradient_norm": 1.0}
    found = read(written(tmp_path, [{**LINES[-1], **extra}]))
    assert [one.name for one in found.tasks] == [SWING, REACH], "no order given: by name"
    assert [one.name for one in found.shares] == [REACH]
    assert [(group.name, [one.name for one in group.curves]) for group in found.torsos] == [
        ("actor/dormant_units", ["all layers"]),
        ("critic/gate_entropy", ["layer 0", "layer 1"]),
    ]
    assert [(group.name, len(group.curves)) for group in found.by_task] == [("critic_loss", 2)]
    assert [curve.name for curve in found.plain] == ["gradient_norm"]
    assert [one.name for one in grouped(found.curves, [REACH, SWING, "absent/task"]).tasks] == [REACH, SWING]


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"torso/critic/load_variation/{layer}" for layer in (10, 2, 0)]
    (group,) = read(written(tmp_path, [{"step": 1, **dict.fromkeys(names, 1.0)}])).torsos
    assert [one.name for one in group.curves] == ["layer 0", "layer 2", "layer 10"]


def test_random_play_and_the_trained_policy_stand_before_and_after(tmp_path: Path) -> None:
    run = written(tmp_path / "run", teacher=TRAINED, random=RANDOM)
    page = Page(write_report(run))
    rows = [cells for cells, _ in page.of_table("learnt")]
    assert rows[0][2:5] == ["Random play", "Last record", "teacher, evaluated"]
    assert rows[1][:3] == [REACH, "success, %", "0.0 [0, 32]"]
    assert rows[1][3:6] == ["75.0", "100.0 [68, 100]", "▲"]
    assert rows[2][:2] == ["return", "100.0 [100, 100]"], "the task's name covers both rows"
    assert rows[2][4] == "", "equal to random play is not better"
    assert rows[3][:2] == [SWING, "return"]
    assert rows[3][2].startswith("23 [20")
    assert rows[3][3:6] == ["400.0", rows[3][4], "▲"]
    assert rows[3][4].startswith("480.0 [4")
    assert "After 3,000 steps the policy is better than random play on all 2 tasks." in page.texts["learning"]


def test_without_random_play_the_first_record_stands_for_it(tmp_path: Path) -> None:
    result = outcome_result("teacher", TASKS, {REACH: [0.0] * 8, SWING: [480.0] * 4})
    found = learned(written(tmp_path), result)
    assert (found.before, found.after, found.first_step, found.last_step) == (FIRST, "teacher", 1000, 3000)
    befores = {(row.task, row.measured): row.before for row in found.rows}
    swing = befores[SWING, "return"]
    assert swing is not None
    assert (swing.value, swing.has_interval) == (30.0, False)
    assert (SWING, "success") not in befores, "a task measured by its return has no success"
    assert found.verdict == (
        "After 3,000 steps the policy is better than the first record (step 1,000) on 1 of 2 tasks; "
        f"not on {REACH}."
    )


def test_random_play_on_other_starts_is_no_comparison(tmp_path: Path) -> None:
    trained = outcome_result("teacher", TASKS, TRAINED)
    other = outcome_result("random", TASKS, {REACH: [0.0] * 2, SWING: [20.0] * 2})
    assert learned(written(tmp_path), trained, other).before == FIRST


def test_a_teacher_stands_before_its_student(tmp_path: Path) -> None:
    teacher, student = (outcome_result(label, TASKS, TRAINED) for label in ("teacher", "student"))
    assert learned(written(tmp_path), teacher, student).after == "teacher"


def test_an_unevaluated_run_shows_what_was_recorded(tmp_path: Path) -> None:
    found = learned(written(tmp_path))
    assert found.by_success == (REACH,), "what was ever solved is measured by success"
    assert [(row.task, row.measured, row.last, row.after) for row in found.rows] == [
        (SWING, "return", 400.0, None),
        (REACH, "success", 0.75, None),
        (REACH, "return", 900.0, None),
    ]
    page = Page(write_report(tmp_path))
    assert "Learning for 3,000 steps; not evaluated yet." in page.texts["learning"]


def test_learning_from_demonstrations_has_no_before_and_after(tmp_path: Path) -> None:
    run = written(tmp_path, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}], teacher=TRAINED)
    assert learnt(read(run).tasks, []) is None
    assert learning_table(run, []) is None
    page = Page(write_report(run))
    assert not page.of_table("learnt")
    assert page.values["learning"] == [0.5]


def test_the_table_on_the_terminal_tells_the_same(tmp_path: Path) -> None:
    results = [outcome_result(*one) for one in (("teacher", TASKS, TRAINED), ("random", TASKS, RANDOM))]
    table = learning_table(written(tmp_path), results)
    assert table is not None
    console = Console(width=120, record=True, file=(tmp_path / "shown").open("w"))
    console.print(table)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["task", "measured", "random", "last", "teacher"] in lines
    assert [*f"{REACH} success, % 0.0 [0, 32] 75.0 100.0 [68, 100] ^".split()] in lines
    (swing,) = [line for line in lines if SWING in line]
    assert (swing[:3], swing[5], swing[-1]) == ([SWING, "return", "23"], "400.0", "^")


def test_many_tasks_have_one_row_each_on_the_terminal(tmp_path: Path) -> None:
    names = [f"suite/task-{index:02}" for index in range(MANY_TASKS + 1)]
    line = {"step": 1, **{f"return/{n}": 1.0 for n in names}, **{f"success/{n}": 0.5 for n in names}}
    table = learning_table(written(tmp_path, [line]), [])
    assert table is not None
    assert table.row_count == len(names)


def test_every_task_has_a_panel_with_an_axis_of_its_own(tmp_path: Path) -> None:
    small = [{"step": s, "return/a/one": s / 3000, "return/a/large": s / 3.0} for s in (1000, 2000, 3000)]
    text = write_report(written(tmp_path, small)).read_text(encoding="utf-8")
    for name, first in (("one", "0.333"), ("large", "333")):
        (line,) = shapes(chart(text, f"a/{name}: return from {first}"), "path", stroke="var(--s1)")
        shares = [(y - TOP) / RETURN_HEIGHT for _, y in line.points]
        # the range with a twentieth left free at either end
        assert shares == pytest.approx([0.9545, 0.5, 0.0455], abs=2e-4), name


def test_a_panel_shows_what_was_evaluated_and_what_random_play_returns(tmp_path: Path) -> None:
    text = write_report(written(tmp_path, teacher=TRAINED, random=RANDOM)).read_text(encoding="utf-8")
    panel = chart(text, f"{SWING}: return from")
    titles = {one.title for one in shapes(panel)}
    assert {"random play: 23", "evaluated at 3,000: 450", "evaluated at the end: 480"} <= titles
    assert len(shapes(panel, fill="var(--soft)")) == 1, "the interval of random play"
    assert "success" not in panel, "measured by its return"
    assert f'aria-label="{REACH}: return from 100 to 900, success from 0 to 0.75"' in text


def test_losses_fold_away_with_one_colour_per_task(tmp_path: Path) -> None:
    run = written(tmp_path)
    page = Page(write_report(run))
    assert "Losses, values and other metrics of every task: 1 figure" in page.texts["learning"]
    assert svgs(page, "critic loss, last") == [f"critic loss, last: {SWING} 0.5, {REACH} 0.25"]


def test_many_lines_are_pale_below_their_median() -> None:
    curves = [Curve(f"{k}", [1.0, 2.0], [float(k), 2.0 * k]) for k in range(COLOURS + 1)]
    axis = read_axis()
    drawn = lines_figure("loss", [NamedCurve(f"task {c.name}", c) for c in curves], [], axis)
    assert len(shapes(drawn, "path", stroke="var(--pale)")) == COLOURS + 1
    assert len(shapes(drawn, "path", stroke="var(--s1)")) == 1
    assert "<title>median: last 8</title>" in drawn


def test_the_largest_share_has_the_full_colour() -> None:
    shares = [NamedCurve("a/b", Curve("", [1.0, 2.0], [0.2, 0.8])), NamedCurve("c", Curve("", [2.0], [0.4]))]
    drawn = shares_figure(shares, read_axis())
    found = shapes(drawn, fill="var(--s1)")
    assert [float(one.style.get("fill-opacity", 1)) for one in found] == pytest.approx(
        [(value / 0.8) ** 0.6 for value in (0.2, 0.8, 0.4)], abs=1e-5
    )
    # a value holds from the record before up to its own
    assert [one.box for one in found] == [(0, 1, 500, 18), (500, 1, 500, 18), (0, 21, 1000, 18)]


def test_shares_and_torsos_are_said_in_words(tmp_path: Path) -> None:
    shares = {f"share/{REACH}": 0.25, f"share/{SWING}": 0.75}
    torsos = {"torso/critic/gate_entropy/0": 0.5, "torso/critic/dormant_units": 0.125, "torso/odd": 1.0}
    page = Page(write_report(written(tmp_path, [{**LINES[0], **shares, **torsos}])))
    said = page.texts["learning"]
    assert "An even share is 50.0%" in said
    assert "25.0%" in said
    assert "critic: gate entropy" in said
    assert "critic: dormant units" in said
    assert svgs(page, "Shares of the tasks over steps, last: ") == [
        f"Shares of the tasks over steps, last: {SWING} 75.0%, {REACH} 25.0%"
    ]


def test_fifty_tasks_have_fifty_panels_and_a_folded_table(tmp_path: Path) -> None:
    names = [f"suite/task-{index:02}" for index in range(50)]
    lines = [{"step": s, **{f"return/{name}": float(s) for name in names}} for s in (1, 2, 3)]
    page = Page(write_report(written(tmp_path, lines)))
    assert len(svgs(page, ": return from 1 to 3")) == 50
    assert "Before and after, 50 tasks" in page.texts["learning"]
    assert any(a.get("class") == "figures tasks small" for _, a in page.elements)


def test_names_are_only_text(tmp_path: Path) -> None:
    hostile = 'evil/<script>alert("1")</script><img src=x onerror=alert(2)>'
    line = {"step": 1, f"return/{hostile}": 1.0, f"share/{hostile}": 1.0, f"loss/{hostile}": 1.0}
    line |= {f"torso/{hostile}/gate_entropy/0": 1.0, f"success/{hostile}": 1.0}
    page = Page(write_report(written(tmp_path, [line])))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert hostile in page.texts["learning"]


def test_a_return_that_was_never_finite_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "return/{SWING}": null, "return/{REACH}": 1.0}}\n')
    assert "no finite return" in Page(write_report(tmp_path)).texts["learning"]


def read_axis() -> Scale:

    return Scale(0.0, 2.0, (0.0, 1.0, 2.0))
