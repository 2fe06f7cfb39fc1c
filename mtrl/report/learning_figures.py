"""The figures of learning: a task's panel, one metric of many tasks, their shares, from before to after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mtrl.evaluation.statistics import Estimate

from .chart import BOTTOM, COLOURS, LEFT, RIGHT, TOP, Chart, Plot, fullness
from .curves import DRAWN_POINTS, Curve
from .figures import WIDTH
from .scale import UNIT, Scale, percent, short_number, signed_number
from .task_curves import NamedCurve, TaskCurves

MANY_TASKS = 12
"""From more tasks on, panels are smaller."""

RETURN_HEIGHT, SUCCESS_HEIGHT, BETWEEN = 116, 48, 16
"""Heights of the two parts of a panel and of the space between them in pixels."""

SMALL_WIDTH, SMALL_RETURN, SMALL_SUCCESS = 165, 78, 34
"""Sizes of a small panel in pixels."""

CROWD_POINTS = 100
"""Points kept of each line in a figure of many."""

STRIPES = 120
"""Stretches of steps in the figure of shares."""

ROW = 20
"""Height of a row of that figure in pixels."""


@dataclass(frozen=True)
class Levels:
    """What a task's returns are compared with; None where it was not evaluated."""

    random: Estimate | None = None
    constant: Estimate | None = None
    trained: Estimate | None = None
    """The policy at the end of training."""


@dataclass(frozen=True)
class PanelShape:
    """What the panels of one metrics file share."""

    horizontal: Scale
    small: bool = False
    success: bool = False
    """Whether some panel shows success, so that every panel has the height of two parts."""


def panel_figure(
    task: TaskCurves, levels: Levels, shape: PanelShape, *, success: bool, trained: Estimate | None = None
) -> Markup:
    """A task's return over steps on a scale of its own, with what it is compared with.

    With `success` that stands below it, from 0 to 100%; `trained` is that of the policy at the end.
    """
    width = SMALL_WIDTH if shape.small else WIDTH
    below = SMALL_SUCCESS if shape.small else SUCCESS_HEIGHT
    height = SMALL_RETURN if shape.small else RETURN_HEIGHT
    lift = BETWEEN + below if shape.success else 0
    returns = any(curve is not None and curve.values for curve in (task.returns, task.evaluated_returns))
    spoken = [f"return{_told(task.returns)}"] if returns else []
    spoken += [f"success{_told(task.success)}"] if success else []
    chart = Chart(f"{task.name}: {', '.join(spoken)}", width, TOP + height + lift + BOTTOM)
    across = width - LEFT - RIGHT
    if returns:
        box = (LEFT, BOTTOM + lift, across, height) if success else (LEFT, BOTTOM, across, height + lift)
        vertical = _return_scale(task, levels)
        plot = chart.plot(shape.horizontal, vertical, box=box, steps=not success)
        _draw_levels(plot, levels, shape.horizontal)
        _draw_task(plot, shape, task.returns, task.evaluated_returns, levels.trained)
    if success:
        vertical = Scale(0.0, 1.0, (0.0, 1.0) if shape.small else (0.0, 0.5, 1.0))
        plot = chart.plot(shape.horizontal, vertical, box=(LEFT, BOTTOM, across, below), share=True)
        _draw_task(plot, shape, task.success, task.evaluated_success, trained)
    return chart.markup()


def lines_figure(
    name: str,
    lines: Sequence[NamedCurve],
    colours: Sequence[str],
    horizontal: Scale,
    *,
    unit_range: bool = False,
    level: float | None = None,
) -> Markup:
    """Several lines of one metric, none empty, each in its colour; without colours pale, below their median.

    `unit_range` gives the scale 0 to 1, where all values lie in it; `level` is a dashed line to compare with.
    """
    values = [value for one in lines for value in one.curve.values]
    values += [] if level is None else [level]
    fits = unit_range and min(values) >= 0 and max(values) <= 1
    last = ", ".join(f"{one.name} {signed_number(one.curve.values[-1])}" for one in lines[:COLOURS])
    points = DRAWN_POINTS if colours else CROWD_POINTS
    chart = Chart(f"{name}, last: {last}", WIDTH, 159)
    plot = chart.plot(horizontal, Scale(0.0, 1.0, (0.0, 0.5, 1.0)) if fits else Scale.of(values))
    if level is not None:
        ends = (horizontal.low, horizontal.high)
        plot.line(ends, (level, level), "soft", signed_number(level), width=1.0, dash=(3, 3))
    for one, colour in zip(lines, colours or ["pale"] * len(lines), strict=True):
        title = f"{one.name}: last {signed_number(one.curve.values[-1])}"
        plot.curve(*one.curve.thinned(points), colour, title)
    if not colours:
        steps, middle = _median(lines).thinned()
        plot.curve(steps, middle, title=f"median: last {signed_number(middle[-1])}")
    return chart.markup()


def shares_figure(shares: Sequence[NamedCurve], horizontal: Scale) -> Markup:
    """A row per task, from left to right the steps; the fuller the colour, the larger the task's share.

    The figure holds no text and takes the width it is given.
    """
    largest = max(max(one.curve.values) for one in shares) or 1.0
    last = ", ".join(f"{one.name} {percent(one.curve.values[-1])}" for one in shares)
    pixels = Scale(ROW * len(shares), 0, ())
    found = [
        ((left, ROW * row + 1, right, ROW * (row + 1) - 1), one.name, value)
        for row, one in enumerate(shares)
        for left, right, value in _stretches(one.curve, horizontal.low)
    ]
    label = f"Shares of the tasks over steps, last: {last}"
    chart = Chart(label, 1000, pixels.low, "stretch")
    chart.bare(horizontal, pixels).rectangles(
        [place for place, _, _ in found],
        ["s1"] * len(found),
        [f"{name}: {percent(value)}" for _, name, value in found],
        fullness=[fullness(max(value, 0.0) / largest) for _, _, value in found],
    )
    return chart.markup()


def change_figure(name: str, before: Estimate, after: Estimate, horizontal: Scale) -> Markup:
    """From `before` (hollow) to `after` (full) with the interval of each."""
    label = f"{name}: from {signed_number(before.value)} to {signed_number(after.value)}"
    chart = Chart(label, WIDTH, 20)
    # space for half a dot at either end
    margin = (horizontal.high - horizontal.low) * 6 / WIDTH
    whole = Scale(horizontal.low - margin, horizontal.high + margin, ())
    plot = chart.bare(whole, Scale(-1.0, 1.0, ()))
    plot.line((horizontal.low, horizontal.high), (0, 0), "grid", width=1.0)
    plot.line((before.value, after.value), (0, 0), "s2", width=2.0, opacity=0.45)
    for estimate in (before, after):
        if estimate.has_interval:
            plot.whisker((estimate.low, estimate.high), (0, 0))
    plot.dots([before.value], [0], "card", size=8, edge="soft")
    plot.dots([after.value], [0], "s2", size=9)
    return chart.markup()


def change_scale(before: Estimate, after: Estimate, measured: str) -> Scale:
    """0 to 100% for success; for a return a range of its own that holds 0 and both intervals."""
    if measured == "success":
        return UNIT
    ends = (0.0, before.low, before.high, after.low, after.high)
    margin = (max(ends) - min(ends)) * 0.04 or 1.0
    return Scale(min(ends) - margin, max(ends) + margin, ())


def _return_scale(task: TaskCurves, levels: Levels) -> Scale:
    """Ends close to the values, with two ticks or more."""
    drawn = [curve for curve in (task.returns, task.evaluated_returns) if curve is not None]
    values = [value for curve in drawn for value in curve.values]
    for estimate in (levels.random, levels.constant, levels.trained):
        values += [] if estimate is None else [estimate.low, estimate.high, estimate.value]
    margin = (max(values) - min(values)) * 0.05
    low, high = min(values) - margin, max(values) + margin
    scales = (Scale.linear(low, high, count, snap=False) for count in (3, 5, 8))
    return next((scale for scale in scales if len(scale.ticks) > 2), Scale.linear(low, high, 3))


def _draw_levels(plot: Plot, levels: Levels, across: Scale) -> None:
    ends = (across.low, across.high)
    if levels.random is not None:
        band = levels.random
        if band.has_interval:
            plot.rectangles([across.low, band.low, across.high, band.high], ["soft"], fullness=[0.14])
        title = f"random play: {signed_number(band.value)}"
        plot.line(ends, (band.value, band.value), "soft", title, width=1.0, dash=(3, 3))
    if levels.constant is not None:
        best = levels.constant.value
        title = f"best constant action: {signed_number(best)}"
        plot.line(ends, (best, best), "soft", title, width=1.6, dash=(1, 3))


def _draw_task(
    plot: Plot,
    shape: PanelShape,
    learning: Curve | None,
    evaluated: Curve | None,
    trained: Estimate | None,
) -> None:
    if learning is not None and learning.values:
        plot.curve(*learning.thinned())
    if evaluated is not None and evaluated.values:
        steps, values = evaluated.thinned()
        titles = [
            f"evaluated at {short_number(step)}: {signed_number(value)}"
            for step, value in zip(steps, values, strict=True)
        ]
        plot.dots(steps, values, "s2", titles)
    if trained is not None:
        end = shape.horizontal.high
        if trained.has_interval:
            plot.whisker((end, end), (trained.low, trained.high))
        title = f"evaluated at the end: {signed_number(trained.value)}"
        plot.dots([end], [trained.value], "s2", [title], size=9)


def _median(lines: Sequence[NamedCurve]) -> Curve:
    at_step: dict[float, list[float]] = {}
    for one in lines:
        for step, value in zip(one.curve.steps, one.curve.values, strict=True):
            at_step.setdefault(step, []).append(value)
    steps = sorted(at_step)
    return Curve("median", steps, [statistics.median(at_step[step]) for step in steps])


def _stretches(curve: Curve, left: float) -> list[tuple[float, float, float]]:
    """(from step, to step, mean share); a value holds for the steps up to its own."""
    found: list[tuple[float, float, float]] = []
    group = math.ceil(len(curve.steps) / STRIPES)
    for first in range(0, len(curve.steps), group):
        values = curve.values[first : first + group]
        right = curve.steps[min(first + group, len(curve.steps)) - 1]
        found.append((left, right, sum(values) / len(values)))
        left = right
    return found


def _told(curve: Curve | None) -> str:
    if curve is None or not curve.values:
        return ""
    return f" from {signed_number(curve.values[0])} to {signed_number(curve.values[-1])}"
