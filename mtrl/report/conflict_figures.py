"""The heat map of task cosines and its scale, and how conflict went over the steps."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from .chart import Chart, fullness
from .conflict import Conflict, cosine
from .curves import Curve
from .figures import WIDTH
from .heat_map import HeatMap
from .scale import UNIT, Scale, percent

_COSINES = Scale(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0))


def heat_figure(conflict: Conflict) -> Markup:
    """A square per pair of tasks: one colour where they pull the same way, the other where they pull apart.

    Rows carry number and name, columns the number. The diagonal, a task with itself, is blank.
    """
    tasks = conflict.tasks
    worst = "" if not conflict.pairs else f", smallest {cosine(conflict.pairs[0].cosine)}"
    return HeatMap(
        f"Mean cosines of the {conflict.part}'s task gradients{worst}",
        [f"{index + 1}  {task}" for index, task in enumerate(tasks)],
        [str(index + 1) for index in range(len(tasks))],
        conflict.mean,
        cosine,
        lambda row, column: f"{tasks[row]} · {tasks[column]}",
        blank=np.eye(len(tasks), dtype=bool),
    ).figure()


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
