"""The figures of learning: a task's panel, one metric of many tasks, their shares, from before to after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from mtrl.evaluation.estimates import Estimate

from .axes import Axis, linear_axis, percent, short_number, value_axis
from .curves import DRAWN_POINTS, Curve
from .drawing import COLOURS, add, at, fullness, grid, level, level_grid, line, markup, plot, signed, title
from .figures import PERCENT_AXIS
from .task_curves import NamedCurve, TaskCurves

MANY_TASKS = 12
"""From more tasks on, panels are smaller."""

RETURN_HEIGHT, RETURN_SMALL = 116, 78
SUCCESS_HEIGHT, SUCCESS_SMALL = 48, 34
"""Heights of the two figures of a panel in pixels."""

BETWEEN = 16
"""Pixels between them, as in the style sheet."""

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
    """Random play."""
    constant: Estimate | None = None
    """The best constant action."""
    trained: Estimate | None = None
    """The policy at the end of training."""


def return_figure(
    task: TaskCurves,
    levels: Levels,
    horizontal: Axis,
    *,
    small: bool = False,
    tall: bool = False,
    steps_below: bool = True,
) -> Markup:
    """A task's return over steps on an axis of its own, with what it is compared with.

    `tall` takes the room of a figure of success below it, so that panels side by side end alike.
    """
    drawn = [curve for curve in (task.returns, task.judged_returns) if curve is not None]
    values = [value for curve in drawn for value in curve.values]
    for estimate in (levels.random, levels.constant, levels.trained):
        values += [] if estimate is None else [estimate.low, estimate.high, estimate.value]
    margin = (max(values) - min(values)) * 0.05
    vertical = _close_axis(min(values) - margin, max(values) + margin)
    told = _told(task.returns)
    height, below = (RETURN_SMALL, SUCCESS_SMALL) if small else (RETURN_HEIGHT, SUCCESS_HEIGHT)
    height += BETWEEN + below if tall else 0
    figure = plot(f"{task.name}: return{told}", height)
    _frame(figure, horizontal, vertical, steps_below)
    if levels.random is not None:
        band = levels.random
        if band.has_interval:
            high, low = vertical.place(band.high), vertical.place(band.low)
            add(figure, "rect", "band", x="0", width="100%", y=at(1 - high), height=at(high - low))
        level(figure, vertical, band.value, "mark", f"random play: {_number(band.value)}")
    if levels.constant is not None:
        best = levels.constant.value
        level(figure, vertical, best, "mark dotted", f"best constant action: {_number(best)}")
    _task_line(figure, horizontal, vertical, task.returns, task.judged_returns, levels.trained)
    return markup(figure)


def success_figure(
    task: TaskCurves, trained: Estimate | None, horizontal: Axis, *, small: bool = False
) -> Markup:
    """A task's success over steps, from 0 to 100%."""
    vertical = Axis(0.0, 1.0, (0.0, 1.0)) if small else Axis(0.0, 1.0, (0.0, 0.5, 1.0))
    figure = plot(f"{task.name}: success{_told(task.success)}", SUCCESS_SMALL if small else SUCCESS_HEIGHT)
    _frame(figure, horizontal, vertical, True, percent=True)
    _task_line(figure, horizontal, vertical, task.success, task.judged_success, trained)
    return markup(figure)


def lines_figure(
    name: str,
    lines: Sequence[NamedCurve],
    colours: Sequence[str],
    horizontal: Axis,
    *,
    unit_range: bool = False,
) -> Markup:
    """Several lines of one metric, none empty, each of a colour's class; without colours pale, below their
    median.

    `unit_range` gives the axis 0 to 1, where all values lie in it.
    """
    values = [value for one in lines for value in one.curve.values]
    fits = unit_range and min(values) >= 0 and max(values) <= 1
    vertical = Axis(0.0, 1.0, (0.0, 0.5, 1.0)) if fits else value_axis(values)
    last = ", ".join(f"{one.name} {_number(one.curve.values[-1])}" for one in lines[:COLOURS])
    figure = plot(f"{name}, last: {last}", 130)
    grid(figure, horizontal, vertical)
    crowd = not colours
    for one, colour in zip(lines, colours or ["pale"] * len(lines), strict=True):
        told = f"{one.name}: last {_number(one.curve.values[-1])}"
        steps, kept = one.curve.thinned(CROWD_POINTS if crowd else DRAWN_POINTS)
        line(figure, horizontal, vertical, steps, kept, colour, told)
    if crowd:
        steps, middle = _median(lines).thinned()
        line(figure, horizontal, vertical, steps, middle, "s1", f"median: last {_number(middle[-1])}")
    return markup(figure)


def shares_figure(shares: Sequence[NamedCurve], horizontal: Axis) -> Markup:
    """A row per task, from left to right the steps; the fuller the colour, the larger the task's share."""
    largest = max(max(one.curve.values) for one in shares) or 1.0
    height = ROW * len(shares)
    last = ", ".join(f"{one.name} {percent(one.curve.values[-1])}" for one in shares)
    figure = plot(f"Shares of the tasks over steps, last: {last}", height, "rows")
    for row, one in enumerate(shares):
        for left, right, value in _stretches(one.curve, horizontal):
            drawn = add(
                figure, "rect", "heat", x=at(left), width=at(right - left),
                y=f"{ROW * row + 1}", height=f"{ROW - 2}",
            )  # fmt: skip
            drawn.set("fill-opacity", f"{fullness(max(value, 0.0) / largest):.3f}")
            title(drawn, f"{one.name}: {percent(value)}")
    for tick in horizontal.ticks:
        text = add(figure, "text", "tick", x=at(horizontal.place(tick)), y=str(height), dy="14")
        text.set("text-anchor", "middle")
        text.text = short_number(tick)
    return markup(figure)


def change_figure(name: str, before: Estimate, after: Estimate, axis: Axis) -> Markup:
    """From `before` (hollow) to `after` (full) with the interval of each."""
    figure = plot(f"{name}: from {_number(before.value)} to {_number(after.value)}", 20, "change")
    start, end = at(axis.place(before.value)), at(axis.place(after.value))
    add(figure, "line", "grid", x1="0", x2="100%", y1="10", y2="10")
    add(figure, "line", "way", x1=start, x2=end, y1="10", y2="10")
    for estimate in (before, after):
        if estimate.has_interval:
            low, high = at(axis.place(estimate.low)), at(axis.place(estimate.high))
            add(figure, "line", "whisker", x1=low, x2=high, y1="10", y2="10")
    add(figure, "circle", "hollow", cx=start, cy="10", r="4")
    add(figure, "circle", "dot s2", cx=end, cy="10", r="4.5")
    return markup(figure)


def change_axis(before: Estimate, after: Estimate, measured: str) -> Axis:
    """0 to 100% for success; for a return a range of its own that holds 0 and both intervals."""
    if measured == "success":
        return PERCENT_AXIS
    ends = (0.0, before.low, before.high, after.low, after.high)
    margin = (max(ends) - min(ends)) * 0.04 or 1.0
    return Axis(min(ends) - margin, max(ends) + margin, ())


def _close_axis(low: float, high: float) -> Axis:
    """Ends at the values, to leave no room empty, with two ticks or more."""
    axes = (linear_axis(low, high, wanted, snap=False) for wanted in (3, 5, 8))
    return next((axis for axis in axes if len(axis.ticks) > 2), linear_axis(low, high, 3))


def _frame(
    figure: ET.Element, horizontal: Axis, vertical: Axis, steps_below: bool, percent: bool = False
) -> None:
    if steps_below:
        grid(figure, horizontal, vertical, percent)
    else:
        level_grid(figure, vertical, percent)


def _task_line(
    figure: ET.Element,
    horizontal: Axis,
    vertical: Axis,
    learning: Curve | None,
    judged: Curve | None,
    trained: Estimate | None,
) -> None:
    if learning is not None and learning.values:
        steps, values = learning.thinned()
        line(figure, horizontal, vertical, steps, values)
    for step, value in zip(*judged.thinned(), strict=True) if judged is not None else ():
        dot = add(
            figure, "circle", "dot s2", r="3.5",
            cx=at(horizontal.place(step)), cy=at(1 - vertical.place(value)),
        )  # fmt: skip
        title(dot, f"evaluated at {short_number(step)}: {_number(value)}")
    if trained is None:
        return
    if trained.has_interval:
        ends = {"y1": at(1 - vertical.place(trained.low)), "y2": at(1 - vertical.place(trained.high))}
        add(figure, "line", "whisker", x1="100%", x2="100%", **ends)
    dot = add(figure, "circle", "dot s2", cx="100%", cy=at(1 - vertical.place(trained.value)), r="4.5")
    title(dot, f"evaluated at the end: {_number(trained.value)}")


def _median(lines: Sequence[NamedCurve]) -> Curve:
    at_step: dict[float, list[float]] = {}
    for one in lines:
        for step, value in zip(one.curve.steps, one.curve.values, strict=True):
            at_step.setdefault(step, []).append(value)
    steps = sorted(at_step)
    return Curve("median", steps, [statistics.median(at_step[step]) for step in steps])


def _stretches(curve: Curve, horizontal: Axis) -> list[tuple[float, float, float]]:
    """(left, right, mean share) in shares of the width; a value holds for the steps up to its own."""
    found: list[tuple[float, float, float]] = []
    group = math.ceil(len(curve.steps) / STRIPES)
    left = 0.0
    for first in range(0, len(curve.steps), group):
        values = curve.values[first : first + group]
        right = horizontal.place(curve.steps[min(first + group, len(curve.steps)) - 1])
        found.append((left, right, sum(values) / len(values)))
        left = right
    return found


def _told(curve: Curve | None) -> str:
    if curve is None or not curve.values:
        return ""
    return f" from {_number(curve.values[0])} to {_number(curve.values[-1])}"


def _number(value: float) -> str:
    return signed(short_number(value))
