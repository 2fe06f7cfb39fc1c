"""The report of conflict between tasks: means, verdicts and heat maps of cosines.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mtrl.report import write_report
from mtrl.report.chart import BOTTOM, LEFT, RIGHT, TOP
from mtrl.report.conflict import COSINES, Conflict, cosine, find_conflicts
from mtrl.report.conflict_figures import (
    conflict_share_figure,
    heat_figure,
    scale_figure,
    smallest_figure,
)
from mtrl.report.figures import WIDTH
from mtrl.report.heat_map import PRINTED

from .pages import Page, shapes

Matrix = Sequence[Sequence[float | None]]
NAMES = ["a/one", "b/two", "c/three"]


def matrix(ab: float | None, ac: float | None, bc: float | None) -> Matrix:
    return [[1.0, ab, ac], [ab, 1.0, bc], [ac, bc, 1.0]]


def line(step: int, cosines: Matrix, part: str = "critic", tasks: Sequence[str] = NAMES) -> str:
    return json.dumps({"step": step, "part": part, "tasks": list(tasks), "cosines": cosines}) + "\n"


def conflict(run: Path, *lines: str) -> Conflict:
    (run / COSINES).write_text("".join(lines))
    found = find_conflicts(run)
    assert found is not None
    (part,) = found.parts
    return part


THREE = (
    line(10, matrix(-0.5, 0.2, None)),
    line(20, matrix(-0.1, -0.1, None)),
    line(30, matrix(-0.3, 0.5, 0.4)),
)


def test_means_are_over_the_records_that_measured_a_pair(tmp_path: Path) -> None:
    found = conflict(tmp_path, *THREE)
    np.testing.assert_allclose(found.mean, [[1, -0.3, 0.2], [-0.3, 1, 0.4], [0.2, 0.4, 1]])
    assert [(p.first, p.second, p.below, p.records) for p in found.pairs] == [
        ("a/one", "b/two", 3, 3),
        ("a/one", "c/three", 1, 3),
        ("b/two", "c/three", 0, 1),
    ]
    # of two, two and three measured pairs
    assert found.share.values == pytest.approx([1 / 2, 1, 1 / 3])
    assert found.smallest.values == pytest.approx([-0.5, -0.1, -0.3])
    assert found.share.steps == found.smallest.steps == [10, 20, 30]


def test_the_verdict_names_the_strongest_conflict(tmp_path: Path) -> None:
    assert conflict(tmp_path, *THREE).verdict == (
        "1 of 3 pairs of tasks pull apart on average. The strongest conflict: a/one and b/two, mean cosine "
        "−0.30, below 0 in 3 of 3 records. Most alike are b/two and c/three with +0.40."
    )


def test_the_verdict_says_when_nothing_conflicts(tmp_path: Path) -> None:
    found = conflict(tmp_path, line(1, matrix(0.5, 0.25, 0.004)))
    assert found.apart == ()
    assert found.verdict == (
        "No pair of tasks pulls apart on average. Nearest to it: b/two and c/three, mean cosine 0.00, below "
        "0 in 0 of 1 record. Most alike are a/one and b/two with +0.50."
    )


@pytest.mark.parametrize(("value", "said"), [(-0.5, "pull apart"), (0.5, "do not pull apart on average")])
def test_two_tasks_are_one_pair(tmp_path: Path, value: float, said: str) -> None:
    found = conflict(tmp_path, line(1, [[1.0, value], [value, 1.0]], tasks=NAMES[:2]))
    below = int(value < 0)
    assert found.verdict == (
        f"a/one and b/two {said}: mean cosine {cosine(value)}, below 0 in {below} of 1 record."
    )
    assert len(shapes(heat_figure(found), fill="var(--shade)")) == 2
    page = Page(write_report(tmp_path))
    assert "cosine of the pair" in page.texts["conflict"]
    assert "share of pairs" not in page.texts["conflict"]


def test_one_task_has_nobody_to_conflict_with(tmp_path: Path) -> None:
    found = conflict(tmp_path, line(1, [[1.0]], tasks=["a/one"]))
    assert found.pairs == ()
    page = Page(write_report(tmp_path))
    assert "One task: there is no other" in page.texts["conflict"]
    assert not [tag for tag, a in page.elements if tag == "svg" and "Mean cosines" in (a["aria-label"] or "")]


def test_pairs_that_nobody_measured_are_dashed_not_zero(tmp_path: Path) -> None:
    found = conflict(tmp_path, line(1, matrix(-0.5, 0.2, None)))
    assert math.isnan(found.mean[1, 2])
    drawn = heat_figure(found)
    dashed = shapes(drawn, stroke="var(--line)")
    assert {one.title for one in dashed} == {
        f"{a}: not measured" for a in ("b/two · c/three", "c/three · b/two")
    }
    assert all("stroke-dasharray" in one.style for one in dashed)
    assert "Dashed: not measured." in Page(write_report(tmp_path)).texts["conflict"]
    none = conflict(tmp_path, line(1, matrix(None, None, None)))
    assert (none.verdict, none.share.values) == ("No pair of tasks was measured.", [])
    assert "No pair of tasks was measured." in Page(write_report(tmp_path)).texts["conflict"]


def test_the_colour_tells_the_sign_and_its_fullness_the_size(tmp_path: Path) -> None:
    drawn = heat_figure(conflict(tmp_path, line(1, matrix(-1.0, 0.0, 0.25))))
    assert len(shapes(drawn, fill="var(--s2)")) == 2
    assert not any("fill-opacity" in one.style for one in shapes(drawn, fill="var(--s2)")), "full"
    together = [float(one.style["fill-opacity"]) for one in shapes(drawn, "path", fill="var(--s1)")]
    assert together == pytest.approx([0.001, 0.25**0.6] * 2, abs=1e-5)
    assert drawn.count(">−1.00</text>") == 2
    assert [len(shapes(scale_figure(), fill=f"var(--{colour})")) for colour in ("s1", "s2")] == [21, 21]


def test_fifty_tasks_have_every_pair_and_every_name(tmp_path: Path) -> None:
    names = [f"suite/task-{index:02}" for index in range(50)]
    values = np.random.default_rng(0).uniform(-1, 1, (50, 50))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    found = conflict(tmp_path, line(1, values.tolist(), tasks=names))
    assert len(found.pairs) == 50 * 49 // 2
    drawn = heat_figure(found)
    assert drawn.count("<title>") == 50 * 49
    assert all(f"{index + 1}  {name}</text>" in drawn for index, name in enumerate(names))
    numbered = [one.text for one in shapes(drawn, "text") if "." in one.text]
    assert not numbered, f"cosines fit up to {PRINTED} tasks"
    worst = np.unravel_index(np.argmin(values), values.shape)
    assert f"{names[min(worst)]} and {names[max(worst)]}, mean cosine" in found.verdict


def test_figures_over_steps_have_fixed_scales(tmp_path: Path) -> None:
    found = conflict(tmp_path, *THREE)
    share, smallest = conflict_share_figure(found), smallest_figure(found)
    assert share.count("%</text>") == 5
    (line,) = shapes(smallest, "path", stroke="var(--s1)")
    across, down = WIDTH - LEFT - RIGHT, 159 - TOP - BOTTOM
    # cosines −0.5, −0.1 and −0.3 from −1 below to 1 above; steps from 0 to 30
    for (x, y), step, height in zip(line.points, (1 / 3, 2 / 3, 1), (0.75, 0.55, 0.65), strict=True):
        assert (x, y) == pytest.approx((LEFT + across * step, TOP + down * height), abs=0.01)


def test_parts_stand_apart(tmp_path: Path) -> None:
    (tmp_path / COSINES).write_text(THREE[0] + line(10, matrix(0.1, 0.2, 0.3), part="actor"))
    said = Page(write_report(tmp_path)).texts["conflict"]
    assert said.index("Gradients of the actor") < said.index("Gradients of the critic")


def test_a_task_that_joins_later_is_found_by_its_name(tmp_path: Path) -> None:
    first = line(1, [[1.0, -0.5], [-0.5, 1.0]], tasks=["b/two", "a/one"])
    found = conflict(tmp_path, first, line(2, matrix(-0.3, 0.2, 0.1)))
    assert found.tasks == ("b/two", "a/one", "c/three")
    assert found.pairs[0].cosine == pytest.approx(-0.4)


@pytest.mark.parametrize(
    "broken",
    [
        '{"step": 2, "part": "critic", "ta',
        "[1]",
        '{"step": true, "part": "critic", "tasks": ["a"], "cosines": [[1]]}',
        '{"step": 1, "part": 3, "tasks": ["a"], "cosines": [[1]]}',
        '{"step": 1, "part": "critic", "tasks": [1], "cosines": [[1]]}',
        '{"step": 1, "part": "critic", "tasks": ["a", "a"], "cosines": [[1, 0], [0, 1]]}',
        '{"step": 1, "part": "critic", "tasks": ["a", "b"], "cosines": [[1, 0], [0]]}',
        '{"step": 1, "part": "critic", "tasks": ["a"], "cosines": [["x"]]}',
        '{"step": 1, "part": "critic", "tasks": [], "cosines": []}',
    ],
)
def test_a_line_that_cannot_be_read_is_reported_and_not_fatal(tmp_path: Path, broken: str) -> None:
    (tmp_path / COSINES).write_text(THREE[0] + broken + "\n\n" + THREE[1])
    found = find_conflicts(tmp_path)
    assert found is not None
    assert (found.unreadable, found.parts[0].share.steps) == ((2,), [10, 20])
    assert "1 line of cosines.jsonl could not be read" in Page(write_report(tmp_path)).texts["conflict"]


def test_rounding_beyond_one_is_forgiven(tmp_path: Path) -> None:
    assert conflict(tmp_path, line(1, matrix(-1.0000002, 1.5, 0.0))).mean[0, 1] == -1.0


def test_a_run_without_the_file_has_no_such_section(tmp_path: Path) -> None:
    assert find_conflicts(tmp_path) is None
    page = Page(write_report(tmp_path))
    assert "conflict" not in page.texts
    (tmp_path / COSINES).write_text("")
    assert "holds no records yet" in Page(write_report(tmp_path)).texts["conflict"]


def test_names_are_only_text(tmp_path: Path) -> None:
    hostile = 'evil/<script>alert("1")</script><img src=x onerror=alert(2)>'
    (tmp_path / COSINES).write_text(line(1, [[1.0, -0.5], [-0.5, 1.0]], hostile, [hostile, "b"]))
    page = Page(write_report(tmp_path))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert page.texts["conflict"].count(hostile) == 2
