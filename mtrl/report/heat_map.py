"""A map of numbers from -1 to 1: a box each, the fuller its colour the larger the number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from .chart import Chart, fullness
from .scale import Scale

PRINTED = 12
"""Up to so many rows and columns the boxes hold their numbers."""

ROWS = 25
"""Up to so many every column has its heading; beyond, every fifth."""

_TEXT = 6.7
"""Width of a character of a name in pixels, on the large side."""


@dataclass(frozen=True)
class HeatMap:
    """Rows by columns of numbers; one colour where they are above 0, the other where below."""

    label: str
    """What a screen reader says."""
    rows: Sequence[str]
    columns: Sequence[str]
    values: npt.NDArray[np.float64]
    """[rows, columns], in [-1, 1]; NaN: not measured, dashed."""
    shown: Callable[[float], str]
    """The number in a box."""
    title: Callable[[int, int], str]
    """What a box of a row and column is about."""
    blank: npt.NDArray[np.bool_] | None = None
    """[rows, columns], boxes that stand for nothing."""

    def figure(self) -> Markup:
        """Names at the left, headings above."""
        most = max(self.values.shape)
        wide, high = (56, 28) if most <= PRINTED else (24, 20) if most <= ROWS else (14, 14)
        size = 11.5 if most <= ROWS else 10.5
        left = round(max(map(len, self.rows)) * _TEXT * size / 11.5) + 14
        count = len(self.columns)
        chart = Chart(self.label, left + wide * count + 2, 22 + high * len(self.rows) + 2, "fixed")
        # one unit is a pixel, from the upper left corner of the first cell
        plot = chart.bare(Scale(-left, chart.width - left, ()), Scale(chart.height - 22, -22, ()))
        for index, name in enumerate(self.rows):
            plot.text(-8, high * (index + 0.5), name, "ink", "right", size=size)
        for index, heading in enumerate(self.columns):
            if most <= ROWS or index == 0 or (index + 1) % 5 == 0:
                plot.text(wide * (index + 0.5), -12, heading, "faint")
        rows, columns = np.indices(self.values.shape).reshape(2, -1)
        boxes = np.stack([columns * wide, rows * high, (columns + 1) * wide, (rows + 1) * high], axis=1)
        boxes = boxes + np.array([0.5, 0.5, -0.5, -0.5])
        values = self.values[rows, columns]
        titles = [f"{self.title(i, j)}: " for i, j in zip(rows, columns, strict=True)]
        blank = np.zeros(len(values), dtype=bool) if self.blank is None else self.blank[rows, columns]
        measured = np.flatnonzero(np.isfinite(values) & ~blank)
        plot.rectangles(boxes[blank], ["shade"] * int(blank.sum()))
        plot.rectangles(
            boxes[measured],
            ["s2" if values[k] < 0 else "s1" for k in measured],
            [titles[k] + self.shown(values[k]) for k in measured],
            fullness=[fullness(values[k]) for k in measured],
        )
        unmeasured = np.flatnonzero(np.isnan(values) & ~blank)
        plot.rectangles(boxes[unmeasured], (), [titles[k] + "not measured" for k in unmeasured])
        for k in measured if most <= PRINTED else ():
            centre = wide * (columns[k] + 0.5), high * (rows[k] + 0.5)
            plot.text(*centre, self.shown(values[k]), "ink", size=11)
        return chart.markup()
