"""The report's axes, curves and paths."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtrl.errors import IntegrityError
from mtrl.report.chart import Chart
from mtrl.report.curves import DRAWN_POINTS, Curve, find_curves, read_curves
from mtrl.report.paths import Obstacle, Side, read_paths, side_of
from mtrl.report.scale import Scale, short_number

from .pages import shapes

DISC = Obstacle(0.0, 0.0, 0.25)
PLACE = {"x": 0, "y": 0, "radius": 0.25}


def test_linear_ticks_are_round() -> None:
    assert Scale.linear(0.03, 0.98).ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert Scale.linear(0.0, 6000.0, 3, snap=False).ticks == (0.0, 2000.0, 4000.0, 6000.0)
    assert Scale.linear(-0.31, 0.29).ticks == (-0.4, -0.2, 0.0, 0.2, 0.4)
    assert Scale.linear(5.0, 5.0).low < 5.0 < Scale.linear(5.0, 5.0).high


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
@example(-10000000.99999988, 0.1)
def test_every_tick_lies_on_its_scale(low: float, width: float) -> None:
    scale = Scale.linear(low, low + width)
    assert scale.low <= low and low + width <= scale.high
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert len(scale.ticks) <= 8
    places = [place for place, _ in scale.placed()]
    assert places == sorted(places)


def test_a_logarithmic_scale_places_equal_ratios_equally() -> None:
    scale = Scale.logarithmic(0.01, 100.0)
    chart = Chart("", 100, 100)
    chart.bare(scale, Scale(0.0, 1.0, ())).line((0.01, 1.0, 100.0), (0, 0, 0))
    (line,) = shapes(chart.markup())
    assert [x for x, _ in line.points] == pytest.approx([0.0, 50.0, 100.0])
    assert scale.ticks == pytest.approx((0.01, 0.1, 1.0, 10.0, 100.0))
    assert Scale.logarithmic(20.0, 110.0).ticks == pytest.approx((20.0, 50.0, 100.0))


def test_only_positive_values_over_a_wide_range_get_a_logarithmic_scale() -> None:
    assert Scale.of([0.001, 1.0]).log
    assert not Scale.of([0.0, 1.0]).log
    assert not Scale.of([0.5, 1.0]).log


def test_short_numbers() -> None:
    numbers = [0, 0.03125, 12.5, 1234, 56_000, 7.8e6, 1.2e-5, -2500.4]
    assert [short_number(n) for n in numbers] == [
        "0",
        "0.0312",
        "12.5",
        "1,234",
        "56k",
        "7.8M",
        "1.2e-5",
        "-2,500",
    ]


def test_curves_are_read_line_by_line(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "loss": 0.5, "gradient": {"norm": 2.0}, "phase": "warm-up", "done": True},
        {"step": 20, "loss": None, "success": 0.25},
        {"step": 30, "loss": 0.25, "gradient": {"norm": 1.0}},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n\n{"step": 40, "lo')
    found = read_curves(path, "metrics.jsonl")
    assert [curve.name for curve in found.curves] == ["success", "loss", "gradient/norm"]
    success, loss, norm = found.curves
    assert (loss.steps, loss.values, loss.dropped) == ([10.0, 30.0], [0.5, 0.25], 1)
    assert (success.steps, norm.values) == ([20.0], [2.0, 1.0])
    assert (found.step_name, found.unreadable) == ("step", (5,))


def test_lines_are_counted_where_no_step_is_given(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 3}\n{"loss": NaN}\n{"loss": 2}\n')
    found = read_curves(tmp_path / "metrics.jsonl", "metrics.jsonl")
    assert found.step_name == "line"
    assert (found.curves[0].steps, found.curves[0].values, found.curves[0].dropped) == (
        [1.0, 3.0],
        [3.0, 2.0],
        1,
    )


def test_metrics_files_are_found_one_level_down(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "teacher/metrics.jsonl", "student/metrics.jsonl", "a/b/metrics.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"step": 1, "loss": 1}\n')
    sources = [curves.source for curves in find_curves(tmp_path)]
    assert sources == ["metrics.jsonl", "student/metrics.jsonl", "teacher/metrics.jsonl"]


def test_thinning_keeps_the_ends_and_the_extremes() -> None:
    values = np.random.default_rng(0).normal(size=10_000).tolist()
    values[5000] = 50.0
    steps, kept = Curve("loss", [float(i) for i in range(10_000)], values).thinned()
    assert len(kept) <= DRAWN_POINTS
    assert (steps[0], steps[-1]) == (0.0, 9999.0)
    assert (max(kept), min(kept)) == (50.0, min(values))
    assert all(values[int(step)] == value for step, value in zip(steps, kept, strict=True))


def test_sides_are_those_of_a_traveller() -> None:
    over = [[-1, 0], [-0.5, 0.5], [0, 0.6], [1, 0]]
    under = [[-1, 0], [0, -0.6], [1, 0]]
    assert side_of(np.array(over), DISC) is Side.LEFT
    assert side_of(np.array(under), DISC) is Side.RIGHT
    # the other way round, the same image has the other names
    assert side_of(np.array(over[::-1]), DISC) is Side.RIGHT


def test_turning_the_image_changes_no_side() -> None:
    path = np.array([[-1, 0.1], [0.1, 0.4], [1, 0]])
    for angle in np.linspace(0, 2 * math.pi, 9):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        assert side_of(path @ turn.T, DISC) is Side.LEFT


def test_who_stops_or_goes_through_did_not_pass() -> None:
    assert side_of(np.array([[-1, 0], [-0.3, 0]]), DISC) is Side.STOPPED
    # no point lies inside the disc, the segment between them does
    assert side_of(np.array([[-1, 0.0], [1, 0.1]]), DISC) is Side.STOPPED
    assert side_of(np.array([[-1, 0.0]]), DISC) is Side.STOPPED


def test_paths_are_read_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "point_paths.json"
    routes = [[[-1, 0], [0, 0.5], [1, 0]], [[-1, 0], [0, -0.5], [1, 0]], [[-1, 0], [0, 0.5], [1, 0]]]
    path.write_text(json.dumps([{"policy": "student", "paths": routes, "obstacle": PLACE}]))
    (found,) = read_paths(path)
    assert [found.count(side) for side in (Side.LEFT, Side.RIGHT, Side.STOPPED)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must be a list"),
        ([{"policy": "a", "paths": []}], r"\[0\]\.obstacle must be an object"),
        (
            [{"policy": "a", "paths": [[[1, 2, 3]]], "obstacle": PLACE}],
            "paths must be",
        ),
        (
            [{"policy": "a", "paths": [[[1], [1, 2]]], "obstacle": PLACE}],
            "paths must be",
        ),
        (
            [{"policy": "a", "paths": [], "obstacle": {**PLACE, "radius": -1}}],
            "radius must be a number",
        ),
    ],
)
def test_wrong_paths_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "point_paths.json"
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=message):
        read_paths(path)


def test_a_chart_has_no_fonts_colours_or_addresses_of_its_own_and_repeats_itself() -> None:
    def drawn() -> str:
        chart = Chart('a "chart" & <b>', 290, 152)
        plot = chart.plot(Scale.linear(0.0, 3.0), Scale.of([1.0, 1000.0]))
        plot.curve([0.0, 1.0, 3.0], [1.0, 10.0, 1000.0], title="$x$ & <y>")
        return chart.markup()

    first = drawn()
    assert first == drawn()
    assert [part for part in ("#", "font-family", "url(", "http", " id=", "<b>") if part in first] == []
    assert {one.title for one in shapes(first) if one.title} == {"$x$ & <y>"}
    assert {one.text for one in shapes(first, "text")} >= {"1", "10", "100", "1,000"}
