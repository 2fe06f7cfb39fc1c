"""The pictures that an agent asks for of its own metrics, such as the use of its experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mtrl.panels import Panel, metric_pattern

from .chart import Chart
from .curves import Curve, Curves
from .figures import WIDTH
from .heat_map import HeatMap
from .scale import Scale, signed_number


@dataclass(frozen=True)
class PanelCurve:
    """One metric that a panel shows."""

    task: str
    """Empty for a metric of all tasks together."""
    layer: int
    """0 where the metric has none."""
    curve: Curve

    @property
    def name(self) -> str:
        """The task, or the metric in words."""
        return self.task or self.curve.name.replace("_", " ")


@dataclass(frozen=True)
class PanelCurves:
    """A panel and what was logged of it, never empty."""

    panel: Panel
    curves: tuple[PanelCurve, ...]

    def by_task(self) -> dict[str, dict[int, Curve]]:
        """Task -> layer -> curve, layers in order."""
        found: dict[str, dict[int, Curve]] = {}
        for one in sorted(self.curves, key=lambda one: one.layer):
            found.setdefault(one.name, {})[one.layer] = one.curve
        return found


def panel_curves(curves: Curves, order: Sequence[str] = ()) -> tuple[PanelCurves, ...]:
    """The panels that have values, their tasks in `order`, the others after it."""
    rank = {task: index for index, task in enumerate(order)}
    found = []
    for panel in curves.panels:
        shown = []
        for pattern in map(metric_pattern, panel.metrics):
            for curve in curves.curves:
                match = pattern.fullmatch(curve.name)
                if match and curve.values:
                    groups = match.groupdict()
                    shown.append(PanelCurve(groups.get("task", ""), int(groups.get("layer", 0)), curve))
        shown.sort(key=lambda one: rank.get(one.task, len(rank)))
        if shown:
            found.append(PanelCurves(panel, tuple(shown)))
    return tuple(found)


def heat_panel(shown: PanelCurves) -> Markup:
    """The last record: a row for each task, a column for each layer; shares are printed in percent."""
    tasks, panel = shown.by_task(), shown.panel
    layers = sorted({one.layer for one in shown.curves})
    last = [[_last(curves.get(layer)) for layer in layers] for curves in tasks.values()]
    values = np.array(last, dtype=np.float64)
    largest = 1.0 if panel.unit_range else float(np.nanmax(np.abs(values))) or 1.0
    names = list(tasks)

    def number(value: float) -> str:
        return f"{100 * value:.0f}%" if panel.unit_range else signed_number(value * largest)

    return HeatMap(
        panel.title,
        names,
        [str(layer) for layer in layers],
        np.clip(values / largest, -1.0, 1.0),
        number,
        lambda row, column: f"{names[row]}, {layers[column]}",
    ).figure()


def profile_panel(shown: PanelCurves, colours: Mapping[str, str]) -> Markup:
    """The last record over the layers, a line for each task, dashed the first one."""
    panel, tasks = shown.panel, shown.by_task()
    layers = sorted({one.layer for one in shown.curves})
    ends = [value for one in shown.curves for value in (one.curve.values[0], one.curve.values[-1])]
    across = Scale(min(layers), max(layers), tuple(layers)) if len(layers) > 1 else Scale.linear(0.0, 1.0)
    chart = Chart(f"{panel.title}: {len(tasks)} tasks", WIDTH, 159)
    plot = chart.plot(across, Scale.of(ends))
    for name, curves in tasks.items():
        places, colour = list(curves), colours.get(name, "pale")
        first = [curve.values[0] for curve in curves.values()]
        last = [curve.values[-1] for curve in curves.values()]
        plot.line(places, first, colour, f"{name}: first record", width=1.2, opacity=0.6, dash=(3, 3))
        words = ", ".join(map(signed_number, last))
        plot.line(places, last, colour, f"{name}: {words}")
        plot.dots(
            places,
            last,
            colour,
            [f"{name}, {p}: {signed_number(v)}" for p, v in zip(places, last, strict=True)],
        )
    return chart.markup()


def _last(curve: Curve | None) -> float:
    return np.nan if curve is None else curve.values[-1]
