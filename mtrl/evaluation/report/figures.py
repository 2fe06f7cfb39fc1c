"""Figures as inline SVG.

Positions are percentages and colours are classes, so that a figure follows the width of the page and
its light or dark theme without scaling its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
from markupsafe import Markup

from ..estimates import Estimate
from ..realtime import LatencySummary
from .axes import Axis, linear_axis, log_axis, short_number, value_axis
from .curves import Curve
from .paths import PolicyPaths, Side

BAR_PITCH = 18
"""Height of one bar's row in pixels; the numbers beside the bars use the same line height."""

PERCENT_AXIS = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
"""Rates from 0 to 100%."""

_PATH_CLASSES = {Side.LEFT: "path s1", Side.RIGHT: "path s2", Side.STOPPED: "path stopped"}


def curve_figure(curve: Curve) -> Markup:
    """One metric over training."""
    steps, values = curve.thinned()
    horizontal = linear_axis(min(steps), max(steps), wanted=3, snap=False)
    vertical = value_axis(values)
    label = f"{curve.name}: from {short_number(values[0])} to {short_number(values[-1])}"
    figure = _plot(label, 130)
    _grid(figure, horizontal, vertical)
    _line(figure, horizontal, vertical, steps, values)
    return _markup(figure)


def version_figure(
    label: str, measured: str, versions: Sequence[float], means: Sequence[Estimate], vertical: Axis
) -> Markup:
    """A mean over tasks ("success" or "score", a share) over policy versions, with the interval of each."""
    horizontal = linear_axis(min(versions), max(versions), wanted=3, snap=False)
    figure = _plot(f"{label}: {measured} over versions", 150)
    _grid(figure, horizontal, vertical, percent=True)
    for version, mean in zip(versions, means, strict=True):
        if not mean.has_interval:
            continue
        x = _percent(horizontal.place(version))
        ends = {"y1": _percent(1 - vertical.place(mean.low)), "y2": _percent(1 - vertical.place(mean.high))}
        _add(figure, "line", "whisker", x1=x, x2=x, **ends)
    _line(figure, horizontal, vertical, versions, [mean.value for mean in means])
    return _markup(figure)


@dataclass(frozen=True)
class Bar:
    """One policy's bar and the numbers beside it."""

    label: str
    """The policy."""
    colour: str
    """Class of its colour."""
    level: Estimate
    shown: str
    """The level in words, such as "75.0%"."""
    interval: str
    """The interval in words, such as "[30.1, 95.4]"."""
    beside: str = ""
    """A further number, such as the return behind a score."""


def bars_figure(
    task: str, bars: Sequence[Bar], axis: Axis, marks: Sequence[float] = (), *, scaled: bool = False
) -> Markup:
    """Levels of several policies on one task, drawn from 0 or from the end of the axis nearest to it.

    `marks` are emphasised values of the axis. `scaled` writes the ticks below the bars, for a figure whose
    axis is its own.
    """
    spoken = ", ".join(f"{bar.label} {bar.shown}" for bar in bars)
    bottom = BAR_PITCH * len(bars)
    figure = _plot(f"{task}: {spoken}", bottom + (BAR_PITCH if scaled else 0), "bars")
    for kind, values in (("grid", axis.ticks), ("mark", marks)):
        for value in values:
            x = _percent(axis.place(value))
            _add(figure, "line", kind, x1=x, x2=x, y1="0", y2=f"{bottom}")
    zero = axis.place(0.0)
    for index, bar in enumerate(bars):
        middle = BAR_PITCH * index + BAR_PITCH / 2
        end = axis.place(bar.level.value)
        across = {"x": _percent(min(zero, end)), "width": _percent(abs(end - zero))}
        drawn = _add(figure, "rect", f"bar {bar.colour}", y=f"{middle - 5:g}", height="10", rx="2", **across)
        _title(drawn, " ".join(filter(None, (f"{task}, {bar.label}: {bar.shown}", bar.interval, bar.beside))))
        if not bar.level.has_interval:
            continue
        low, high = _percent(axis.place(bar.level.low)), _percent(axis.place(bar.level.high))
        _add(figure, "line", "whisker", x1=low, x2=high, y1=f"{middle:g}", y2=f"{middle:g}")
        for x in (low, high):
            _add(figure, "line", "whisker", x1=x, x2=x, y1=f"{middle - 3:g}", y2=f"{middle + 3:g}")
    for tick in axis.ticks if scaled else ():
        place = axis.place(tick)
        text = _add(figure, "text", "tick", x=_percent(place), y=str(bottom + 12))
        text.set("text-anchor", "start" if place < 0.02 else "end" if place > 0.98 else "middle")
        text.text = short_number(tick)
    return _markup(figure)


def latency_figure(latency: LatencySummary) -> Markup:
    """Calls by duration, with the median, the 99th percentile and the longest call marked."""
    edges = latency.edges
    filled = [index for index, count in enumerate(latency.counts) if count]
    low, high = edges[filled[0]], edges[filled[-1] + 1]
    positive = low if low > 0 else edges[1] / 2
    horizontal = log_axis(positive, high) if high > 5 * positive else linear_axis(low, high, snap=False)
    vertical = linear_axis(0, max(latency.counts), wanted=3)
    figure = _plot(
        f"Latency of {latency.calls} calls: median {latency.p50:.1f}, 99th percentile {latency.p99:.1f}, "
        f"longest {latency.maximum:.1f} microseconds",
        210,
        "latency",
    )
    _grid(figure, horizontal, vertical)
    for index in filled:
        left, right = horizontal.place(edges[index]), horizontal.place(edges[index + 1])
        height = latency.counts[index] / vertical.high
        bar = _add(
            figure, "rect", "bar s1 thin",
            x=_percent(left), width=_percent(right - left), y=_percent(1 - height), height=_percent(height),
        )  # fmt: skip
        _title(bar, f"{edges[index]:.4g} to {edges[index + 1]:.4g} µs: {latency.counts[index]:,} calls")
    marks = (("p50", latency.p50), ("p99", latency.p99), ("max", latency.maximum))
    for row, (name, value) in enumerate(marks):
        place = horizontal.place(value)
        # one row each, so that neighbouring marks cannot cover one another
        top = -38 + 13 * row
        _add(figure, "line", "mark", x1=_percent(place), x2=_percent(place), y1=f"{top + 3}", y2="100%")
        text = _add(
            figure,
            "text",
            "tick note",
            x=_percent(place),
            y=str(top),
            dx="4" if place < 0.7 else "-4",
            dy="9",
        )
        text.set("text-anchor", "start" if place < 0.7 else "end")
        text.text = f"{name} {value:,.1f}"
    return _markup(figure)


def paths_figure(drawn: PolicyPaths, shown_beside: Sequence[PolicyPaths]) -> Markup:
    """Every episode of the point task from above; y upwards, the same scale in both directions.

    The view holds the paths of `shown_beside` too, so that figures side by side have one scale.
    """
    corners = [path for policy in (drawn, *shown_beside) for path in policy.paths]
    for policy in (drawn, *shown_beside):
        disc = np.array([policy.obstacle.x, policy.obstacle.y])
        corners.append(np.stack([disc - policy.obstacle.radius, disc + policy.obstacle.radius]))
    points = np.concatenate(corners)
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.maximum(high - low, 1e-9)
    scale = 1000.0 / float(size.max())
    margin = 20.0
    width, height = size * scale + 2 * margin
    counts = ", ".join(f"{drawn.count(side)} {side.value}" for side in Side)
    figure = ET.Element("svg", {"class": "paths", "role": "img", "viewBox": f"0 0 {width:.0f} {height:.0f}"})
    figure.set("aria-label", f"Paths of {drawn.policy}: {counts}")
    x, y = (drawn.obstacle.x - low[0]) * scale + margin, (high[1] - drawn.obstacle.y) * scale + margin
    radius = f"{drawn.obstacle.radius * scale:.1f}"
    _add(figure, "circle", "obstacle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius)
    for path, side in zip(drawn.paths, drawn.sides, strict=True):
        stride = max(1, len(path) // 200)
        kept = np.concatenate([path[:-1:stride], path[-1:]])
        x = (kept[:, 0] - low[0]) * scale + margin
        y = (high[1] - kept[:, 1]) * scale + margin
        _add(figure, "polyline", _PATH_CLASSES[side], points=_points(x.tolist(), y.tolist()))
        _add(figure, "circle", _PATH_CLASSES[side] + " end", cx=f"{x[-1]:.1f}", cy=f"{y[-1]:.1f}", r="7")
    return _markup(figure)


def _plot(label: str, height: int, kind: str = "") -> ET.Element:
    attributes = {"class": f"plot {kind}".strip(), "role": "img", "width": "100%", "height": str(height)}
    return ET.Element("svg", {**attributes, "aria-label": label})


def _grid(figure: ET.Element, horizontal: Axis, vertical: Axis, percent: bool = False) -> None:
    for tick in vertical.ticks:
        y = _percent(1 - vertical.place(tick))
        _add(figure, "line", "grid", x1="0", x2="100%", y1=y, y2=y)
        text = _add(figure, "text", "tick", x="-8", y=y, dy="0.32em")
        text.set("text-anchor", "end")
        text.text = f"{100 * tick:g}%" if percent else short_number(tick)
    for tick in horizontal.ticks:
        text = _add(figure, "text", "tick", x=_percent(horizontal.place(tick)), y="100%", dy="16")
        text.set("text-anchor", "middle")
        text.text = short_number(tick)


def _line(
    figure: ET.Element, horizontal: Axis, vertical: Axis, steps: Sequence[float], values: Sequence[float]
) -> None:
    x = [1000 * horizontal.place(step) for step in steps]
    y = [1000 * (1 - vertical.place(value)) for value in values]
    # stretched to the plot's size; the stroke is not, by the style sheet
    inner = _add(figure, "svg", "", viewBox="0 0 1000 1000", preserveAspectRatio="none")
    inner.set("width", "100%")
    inner.set("height", "100%")
    _add(inner, "polyline", "curve s1", points=_points(x, y))
    _add(figure, "circle", "dot s1", cx=f"{x[-1] / 10:.2f}%", cy=f"{y[-1] / 10:.2f}%", r="3.5")


def _add(parent: ET.Element, tag: str, kind: str, **attributes: str) -> ET.Element:
    named = {"class": kind, **attributes} if kind else attributes
    return ET.SubElement(parent, tag, named)


def _title(element: ET.Element, text: str) -> None:
    ET.SubElement(element, "title").text = text


def _points(x: Sequence[float], y: Sequence[float]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _markup(figure: ET.Element) -> Markup:
    # safe by construction: ElementTree escapes every text and attribute
    return Markup(ET.tostring(figure, encoding="unicode"))
