"""The heat map of task cosines and its scale, and how conflict went over the steps."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from markupsafe import Markup

from .axes import Axis, linear_axis, percent
from .conflict import Conflict, cosine
from .curves import Curve
from .drawing import add, fullness, grid, level, line, markup, plot, title
from .figures import PERCENT_AXIS

PRINTED = 12
"""Up to so many tasks the cells hold their numbers."""

ROWS = 25
"""Up to so many tasks every column is numbered; beyond, every fifth."""

_TEXT = 6.7
"""Width of a character of a name in pixels, on the large side."""


def heat_figure(conflict: Conflict) -> Markup:
    """A square per pair of tasks: one colour where they pull the same way, the other where they pull apart.

    Rows carry number and name, columns the number. The diagonal, a task with itself, is blank.
    """
    count = len(conflict.tasks)
    wide, high = (56, 28) if count <= PRINTED else (24, 20) if count <= ROWS else (14, 14)
    names = [f"{index + 1}  {task}" for index, task in enumerate(conflict.tasks)]
    left = round(max(len(name) for name in names) * _TEXT * (1 if count <= ROWS else 0.9)) + 14
    width, height = left + wide * count + 2, 22 + high * count + 2
    figure = ET.Element("svg", {"class": "heat", "role": "img", "width": str(width), "height": str(height)})
    worst = "" if not conflict.pairs else f", smallest {cosine(conflict.pairs[0].cosine)}"
    figure.set("aria-label", f"Mean cosines of the {conflict.part}'s task gradients{worst}")
    figure.set("viewBox", f"0 0 {width} {height}")
    for index, name in enumerate(names):
        y = 22 + high * index + high / 2
        text = add(figure, "text", "tick row", x=str(left - 8), y=f"{y:g}", dy="0.34em")
        text.set("text-anchor", "end")
        text.text = name
        if count <= ROWS or index == 0 or (index + 1) % 5 == 0:
            text = add(figure, "text", "tick", x=f"{left + wide * (index + 0.5):g}", y="14")
            text.set("text-anchor", "middle")
            text.text = str(index + 1)
        for other in range(count):
            _cell(figure, conflict, index, other, (left + wide * other, 22 + high * index, wide, high))
    return markup(figure)


def scale_figure() -> Markup:
    """The colours of cosines from -1 to 1, with numbers."""
    figure = ET.Element("svg", {"class": "heat", "role": "img", "width": "286", "height": "30"})
    figure.set("aria-label", "Colours of cosines from -1 to 1")
    for index in range(42):
        value = (index + 0.5) / 21 - 1
        _patch(figure, value, (14 + 6 * index, 0, 6.2, 12))
    for value in (-1.0, -0.5, 0.0, 0.5, 1.0):
        text = add(figure, "text", "tick", x=f"{140 + 126 * value:g}", y="26")
        text.set("text-anchor", "middle")
        text.text = f"{value:+g}".replace("-", "−") if value else "0"
    return markup(figure)


def conflict_share_figure(conflict: Conflict) -> Markup:
    """The share of pairs that pull apart, over steps."""
    return _over_steps(
        f"{conflict.part}: {conflict.share.name}", conflict.share, PERCENT_AXIS, percent_ticks=True
    )


def smallest_figure(conflict: Conflict) -> Markup:
    """The smallest cosine of a pair, over steps, from -1 to 1."""
    vertical = Axis(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0))
    return _over_steps(f"{conflict.part}: {conflict.smallest.name}", conflict.smallest, vertical)


def _over_steps(label: str, curve: Curve, vertical: Axis, percent_ticks: bool = False) -> Markup:
    steps, values = curve.thinned()
    last = percent(values[-1]) if percent_ticks else cosine(values[-1])
    horizontal = linear_axis(0.0, max(steps), wanted=3, snap=False)
    figure = plot(f"{label}, last {last}", 130)
    grid(figure, horizontal, vertical, percent=percent_ticks)
    if not percent_ticks:
        level(figure, vertical, 0.0, "mark", "0: neither together nor apart")
    line(figure, horizontal, vertical, steps, values, "s1" if not percent_ticks else "s2", f"last {last}")
    return markup(figure)


def _cell(
    figure: ET.Element, conflict: Conflict, row: int, column: int, place: tuple[float, float, float, float]
) -> None:
    x, y, wide, high = place
    inner = (x + 0.5, y + 0.5, wide - 1.0, high - 1.0)
    if row == column:
        _rectangle(figure, "cell self", inner)
        return
    value = float(conflict.mean[row, column])
    told = f"{conflict.tasks[row]} · {conflict.tasks[column]}: "
    if math.isnan(value):
        title(_rectangle(figure, "cell unmeasured", inner), f"{told}not measured")
        return
    title(_patch(figure, value, inner), told + cosine(value))
    if len(conflict.tasks) > PRINTED:
        return
    text = add(figure, "text", "tick number", x=f"{x + wide / 2:g}", y=f"{y + high / 2:g}", dy="0.34em")
    text.set("text-anchor", "middle")
    text.text = cosine(value)


def _patch(figure: ET.Element, value: float, place: tuple[float, float, float, float]) -> ET.Element:
    drawn = _rectangle(figure, f"cell {'apart' if value < 0 else 'together'}", place)
    drawn.set("fill-opacity", f"{fullness(value):.3f}")
    return drawn


def _rectangle(figure: ET.Element, kind: str, place: tuple[float, float, float, float]) -> ET.Element:
    x, y, wide, high = (f"{value:g}" for value in place)
    return add(figure, "rect", kind, x=x, y=y, width=wide, height=high)
