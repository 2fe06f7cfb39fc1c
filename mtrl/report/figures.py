"""The report's figures: metrics and versions over time, bars, durations, paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
from markupsafe import Markup

from mtrl.evaluation.estimates import Estimate

from .axes import Axis, linear_axis, log_axis, short_number, value_axis
from .curves import Curve
from .drawing import add, at, coordinates, grid, line, markup, plot, title
from .paths import PolicyPaths, Side
from .realtime import LatencySummary

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
    figure = plot(label, 130)
    grid(figure, horizontal, vertical)
    line(figure, horizontal, vertical, steps, values)
    return markup(figure)


def version_figure(
    label: str, measured: str, versions: Sequence[float], means: Sequence[Estimate], vertical: Axis
) -> Markup:
    """A mean over tasks ("success" or "score", a share) over policy versions, with the interval of each."""
    horizontal = linear_axis(min(versions), max(versions), wanted=3, snap=False)
    figure = plot(f"{label}: {measured} over versions", 150)
    grid(figure, horizontal, vertical, percent=True)
    for version, mean in zip(versions, means, strict=True):
        if not mean.has_interval:
            continue
        x = at(horizontal.place(version))
        ends = {"y1": at(1 - vertical.place(mean.low)), "y2": at(1 - vertical.place(mean.high))}
        add(figure, "line", "whisker", x1=x, x2=x, **ends)
    line(figure, horizontal, vertical, versions, [mean.value for mean in means])
    return markup(figure)


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
    task: str,
    bars: Sequence[Bar],
    axis: Axis,
    marks: Sequence[float] = (),
    *,
    scaled: bool = False,
    share: bool = False,
) -> Markup:
    """Levels of several policies on one task, drawn from 0 or from the end of the axis nearest to it.

    `marks` are emphasised values of the axis. `scaled` writes the ticks below the bars, for a figure whose
    axis is its own; in percent where the levels are a `share`.
    """
    spoken = ", ".join(f"{bar.label} {bar.shown}" for bar in bars)
    bottom = BAR_PITCH * len(bars)
    figure = plot(f"{task}: {spoken}", bottom + (BAR_PITCH if scaled else 0), "bars")
    for kind, values in (("grid", axis.ticks), ("mark", marks)):
        for value in values:
            x = at(axis.place(value))
            add(figure, "line", kind, x1=x, x2=x, y1="0", y2=f"{bottom}")
    zero = axis.place(0.0)
    for index, bar in enumerate(bars):
        middle = BAR_PITCH * index + BAR_PITCH / 2
        end = axis.place(bar.level.value)
        across = {"x": at(min(zero, end)), "width": at(abs(end - zero))}
        drawn = add(figure, "rect", f"bar {bar.colour}", y=f"{middle - 5:g}", height="10", rx="2", **across)
        title(drawn, " ".join(filter(None, (f"{task}, {bar.label}: {bar.shown}", bar.interval, bar.beside))))
        if not bar.level.has_interval:
            continue
        low, high = at(axis.place(bar.level.low)), at(axis.place(bar.level.high))
        add(figure, "line", "whisker", x1=low, x2=high, y1=f"{middle:g}", y2=f"{middle:g}")
        for x in (low, high):
            add(figure, "line", "whisker", x1=x, x2=x, y1=f"{middle - 3:g}", y2=f"{middle + 3:g}")
    for tick in axis.ticks if scaled else ():
        place = axis.place(tick)
        text = add(figure, "text", "tick", x=at(place), y=str(bottom + 12))
        text.set("text-anchor", "start" if place < 0.02 else "end" if place > 0.98 else "middle")
        text.text = f"{100 * tick:,.0f}%" if share else short_number(tick)
    return markup(figure)


def latency_figure(latency: LatencySummary) -> Markup:
    """Calls by duration, with the median, the 99th percentile and the longest call marked."""
    edges = latency.edges
    filled = [index for index, count in enumerate(latency.counts) if count]
    low, high = edges[filled[0]], edges[filled[-1] + 1]
    positive = low if low > 0 else edges[1] / 2
    horizontal = log_axis(positive, high) if high > 5 * positive else linear_axis(low, high, snap=False)
    vertical = linear_axis(0, max(latency.counts), wanted=3)
    figure = plot(
        f"Latency of {latency.calls} calls: median {latency.p50:.1f}, 99th percentile {latency.p99:.1f}, "
        f"longest {latency.maximum:.1f} microseconds",
        210,
        "latency",
    )
    grid(figure, horizontal, vertical)
    for index in filled:
        left, right = horizontal.place(edges[index]), horizontal.place(edges[index + 1])
        height = latency.counts[index] / vertical.high
        bar = add(
            figure, "rect", "bar s1 thin",
            x=at(left), width=at(right - left), y=at(1 - height), height=at(height),
        )  # fmt: skip
        title(bar, f"{edges[index]:.4g} to {edges[index + 1]:.4g} µs: {latency.counts[index]:,} calls")
    marks = (("p50", latency.p50), ("p99", latency.p99), ("max", latency.maximum))
    for row, (name, value) in enumerate(marks):
        place = horizontal.place(value)
        # one row each, so that neighbouring marks cannot cover one another
        top = -38 + 13 * row
        add(figure, "line", "mark", x1=at(place), x2=at(place), y1=f"{top + 3}", y2="100%")
        text = add(
            figure,
            "text",
            "tick note",
            x=at(place),
            y=str(top),
            dx="4" if place < 0.7 else "-4",
            dy="9",
        )
        text.set("text-anchor", "start" if place < 0.7 else "end")
        text.text = f"{name} {value:,.1f}"
    return markup(figure)


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
    add(figure, "circle", "obstacle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius)
    for path, side in zip(drawn.paths, drawn.sides, strict=True):
        stride = max(1, len(path) // 200)
        kept = np.concatenate([path[:-1:stride], path[-1:]])
        x = (kept[:, 0] - low[0]) * scale + margin
        y = (high[1] - kept[:, 1]) * scale + margin
        add(figure, "polyline", _PATH_CLASSES[side], points=coordinates(x.tolist(), y.tolist()))
        add(figure, "circle", _PATH_CLASSES[side] + " end", cx=f"{x[-1]:.1f}", cy=f"{y[-1]:.1f}", r="7")
    return markup(figure)
