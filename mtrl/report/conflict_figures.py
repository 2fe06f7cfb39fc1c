"""The heat map of task cosines and its scale, and how conflict went over the steps."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from .chart import Chart, fullness
from .conflict import Conflict, cosine
from .curves import Curve
from .figures import WIDTH
from .scale import UNIT, Scale, percent

PRINTED = 12
"""Up to so many tasks the cells hold their numbers."""

ROWS = 25
"""Up to so many tasks every column is numbered; beyond, every fifth."""

_TEXT = 6.7
"""Width of a character of a name in pixels, on the large side."""

_COSINES = Scale(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0))


def heat_figure(conflict: Conflict) -> Markup:
    """A square per pair of tasks: one colour where they pull the same way, the other where they pull apart.

    Rows carry number and name, columns the number. The diagonal, a task with itself, is blank.
    """
    count = len(conflict.tasks)
    wide, high = (56, 28) if count <= PRINTED else (24, 20) if count <= ROWS else (14, 14)
    size = 11.5 if count <= ROWS else 10.5
    names = [f"{index + 1}  {task}" for index, task in enumerate(conflict.tasks)]
    left = round(max(len(name) for name in names) * _TEXT * size / 11.5) + 14
    worst = "" if not conflict.pairs else f", smallest {cosine(conflict.pairs[0].cosine)}"
    label = f"Mean cosines of the {conflict.part}'s task gradients{worst}"
    chart = Chart(label, left + wide * count + 2, 22 + high * count + 2, "fixed")
    # one unit is a pixel, from the upper left corner of the first cell
    plot = chart.bare(Scale(-left, chart.width - left, ()), Scale(chart.height - 22, -22, ()))
    for index, name in enumerate(names):
        plot.text(-8, high * (index + 0.5), name, "ink", "right", size=size)
        if count <= ROWS or index == 0 or (index + 1) % 5 == 0:
            plot.text(wide * (index + 0.5), -12, str(index + 1), "faint")
    rows, columns = np.indices((count, count)).reshape(2, -1)
    boxes = np.stack([columns * wide, rows * high, (columns + 1) * wide, (rows + 1) * high], axis=1)
    boxes = boxes + np.array([0.5, 0.5, -0.5, -0.5])
    cosines = conflict.mean[rows, columns]
    titles = [f"{conflict.tasks[i]} · {conflict.tasks[j]}: " for i, j in zip(rows, columns, strict=True)]
    own = rows == columns
    measured = np.flatnonzero(np.isfinite(cosines) & ~own)
    plot.rectangles(boxes[own], ["shade"] * count)
    plot.rectangles(
        boxes[measured],
        ["s2" if cosines[k] < 0 else "s1" for k in measured],
        [titles[k] + cosine(cosines[k]) for k in measured],
        fullness=[fullness(cosines[k]) for k in measured],
    )
    unmeasured = np.flatnonzero(np.isnan(cosines) & ~own)
    plot.rectangles(boxes[unmeasured], (), [titles[k] + "not measured" for k in unmeasured])
    for k in measured if count <= PRINTED else ():
        centre = wide * (columns[k] + 0.5), high * (rows[k] + 0.5)
        plot.text(*centre, cosine(cosines[k]), "ink", size=11)
    return chart.markup()


def scale_figure() -> Markup:
    """The colours of cosines from -1 to 1, with numbers."""
    chart = Chart("Colours of cosines from -1 to 1", 286, 30, "fixed")
    plot = chart.bare(Scale(-143 / 126, 143 / 126, ()), Scale(30, 0, ()))
    values = (np.arange(42) + 0.5) / 21 - 1
    boxes = [(value - 1 / 42, 0, value + 1 / 42, 12) for value in values]
    colours = ["s2" if value < 0 else "s1" for value in values]
    plot.rectangles(boxes, colours, fullness=[fullness(value) for value in values])
    for value in _COSINES.ticks:
        plot.text(value, 22, f"{value:+g}".replace("-", "−") if value else "0", "faint")
    return chart.markup()


def conflict_share_figure(conflict: Conflict) -> Markup:
    """The share of pairs that pull apart, over steps."""
    last = f"last {percent(conflict.share.values[-1])}"
    return _over_steps(conflict.part, conflict.share, UNIT, last, "s2")


def smallest_figure(conflict: Conflict) -> Markup:
    """The smallest cosine of a pair, over steps, from -1 to 1."""
    last = f"last {cosine(conflict.smallest.values[-1])}"
    return _over_steps(conflict.part, conflict.smallest, _COSINES, last, "s1")


def _over_steps(part: str, curve: Curve, vertical: Scale, last: str, colour: str) -> Markup:
    steps, values = curve.thinned()
    horizontal = Scale.linear(0.0, max(steps), 3, snap=False)
    chart = Chart(f"{part}: {curve.name}, {last}", WIDTH, 159)
    plot = chart.plot(horizontal, vertical, share=vertical is UNIT)
    if vertical is _COSINES:
        title = "0: neither together nor apart"
        plot.line((0, horizontal.high), (0, 0), "soft", title, width=1.0, dash=(3, 3))
    plot.curve(steps, values, colour, last)
    return chart.markup()
