"""The report's figures: metrics and versions over time, bars, durations, paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from mtrl.deployment.realtime.latency import Latency
from mtrl.evaluation.statistics import Estimate

from .chart import LEFT, RIGHT, Align, Chart, Plot
from .curves import Curve
from .paths import PlannedTask, PolicyPaths, Side
from .scale import Scale, short_number

WIDTH = 290
"""Natural width of a figure in a card of the page, in pixels."""

WIDE = 640
"""Natural width of a figure that has a card to itself."""

BAR_PITCH = 18
"""Height of one bar's row in pixels; the numbers next to the bars use the same line height."""

_PATH_COLOURS = {Side.LEFT: "s1", Side.RIGHT: "s2", Side.STOPPED: "faint"}


def curve_figure(curve: Curve) -> Markup:
    """One metric over training."""
    steps, values = curve.thinned()
    label = f"{curve.name}: from {short_number(values[0])} to {short_number(values[-1])}"
    chart = Chart(label, WIDTH, 159)
    horizontal = Scale.linear(min(steps), max(steps), 3, snap=False)
    chart.plot(horizontal, Scale.of(values)).curve(steps, values)
    return chart.markup()


def version_figure(
    label: str, measured: str, versions: Sequence[float], means: Sequence[Estimate], vertical: Scale
) -> Markup:
    """A mean over tasks ("success" or "score", a share) over policy versions, with the interval of each."""
    chart = Chart(f"{label}: {measured} over versions", WIDTH, 179)
    plot = chart.plot(Scale.linear(min(versions), max(versions), 3, snap=False), vertical, share=True)
    known = [(version, mean) for version, mean in zip(versions, means, strict=True) if mean.has_interval]
    for version, mean in known:
        plot.whisker((version, version), (mean.low, mean.high))
    plot.curve(versions, [mean.value for mean in means])
    return chart.markup()


@dataclass(frozen=True)
class Bar:
    """One policy's bar and its numbers."""

    label: str
    colour: str
    level: Estimate
    shown: str
    """The level in words, such as "75.0%"."""
    interval: str
    """The interval in words, such as "[30.1, 95.4]"."""
    further: str = ""
    """A further number, such as the return behind a score."""


def bars_figure(task: str, bars: Sequence[Bar], scale: Scale, marks: Sequence[float] = ()) -> Markup:
    """Levels of several policies on one task, drawn from 0 or from the end of the scale nearest to it.

    `marks` are emphasised values of the scale. The figure holds no text and takes the width it is given.
    """
    spoken = ", ".join(f"{bar.label} {bar.shown}" for bar in bars)
    rows = range(len(bars))
    pixels = Scale(BAR_PITCH * len(bars), 0, ())
    middles = [BAR_PITCH * (row + 0.5) for row in rows]
    zero = min(max(0.0, scale.low), scale.high)
    chart = Chart(f"{task}: {spoken}", 1000, pixels.low, "stretch")
    plot = chart.bare(scale, pixels)
    for tick in scale.ticks:
        plot.line((tick, tick), (0, pixels.low), "grid", width=1.0)
    for mark in marks:
        plot.line((mark, mark), (0, pixels.low), "soft", width=1.0, dash=(3, 3))
    plot.rectangles(
        [
            (min(zero, bar.level.value), middle - 5, max(zero, bar.level.value), middle + 5)
            for bar, middle in zip(bars, middles, strict=True)
        ],
        [bar.colour for bar in bars],
        [
            " ".join(filter(None, (f"{task}, {bar.label}: {bar.shown}", bar.interval, bar.further)))
            for bar in bars
        ],
    )
    for bar, middle in zip(bars, middles, strict=True):
        low, high = bar.level.low, bar.level.high
        if bar.level.has_interval:
            plot.whisker((low, low, low, high, high, high), middle + np.array([-3, 3, 0, 0, -3, 3]))
    return chart.markup()


def latency_figure(latency: Latency, width: int = WIDTH) -> Markup:
    """Calls by duration, with the median, the 99th percentile and the longest call marked."""
    edges = latency.edges
    filled = [index for index, count in enumerate(latency.counts) if count]
    low, high = edges[filled[0]], edges[filled[-1] + 1]
    positive = low if low > 0 else edges[1] / 2
    log = high > 5 * positive
    horizontal = Scale.logarithmic(positive, high) if log else Scale.linear(low, high, snap=False)
    label = (
        f"Latency of {latency.samples} calls: median {latency.p50:.1f}, 99th percentile {latency.p99:.1f}, "
        f"longest {latency.max:.1f} microseconds"
    )
    head, tall = 44, 190
    chart = Chart(label, width, head + tall + 26)
    box = (LEFT, 26, width - LEFT - RIGHT, tall)
    vertical = Scale.linear(0, max(latency.counts), 3)
    plot = chart.plot(horizontal, vertical, box=box)
    plot.rectangles(
        [(max(edges[index], horizontal.low), 0, edges[index + 1], latency.counts[index]) for index in filled],
        ["s1"] * len(filled),
        [
            f"{edges[index]:.4g} to {edges[index + 1]:.4g} µs: {latency.counts[index]:,} calls"
            for index in filled
        ],
    )
    marks = (("p50", latency.p50), ("p99", latency.p99), ("max", latency.max))
    middle = (horizontal.low * horizontal.high) ** 0.5 if log else (low + high) / 2
    for row, (name, value) in enumerate(marks):
        # one row each, so that neighbouring marks cannot cover one another
        top = head - 8 - 13 * row
        plot.line((value, value), (0, vertical.high * (1 + top / tall)), "soft", width=1.0, dash=(3, 3))
        align: Align = "left" if value < middle else "right"
        shift = (4 if value < middle else -4, top)
        plot.text(value, vertical.high, f"{name} {value:,.1f}", "ink", align, shift=shift)
    return chart.markup()


def paths_figure(drawn: PolicyPaths, compared: Sequence[PolicyPaths]) -> Markup:
    """Every episode of the point task from above; y upwards, the same scale in both directions.

    The view holds the paths of `compared` too, so that figures side by side have one scale.
    """
    policies = (drawn, *compared)
    discs = [
        (p.obstacle.x + r, p.obstacle.y + r)
        for p in policies
        for r in (-p.obstacle.radius, p.obstacle.radius)
    ]
    points = np.concatenate([discs, *(path for policy in policies for path in policy.paths)])
    counts = ", ".join(f"{drawn.count(side)} {side.value}" for side in Side)
    chart, plot, scale = _from_above(f"Paths of {drawn.policy}: {counts}", points)
    place = drawn.obstacle
    disc = 2 * scale * place.radius
    plot.dots([place.x], [place.y], "shade", size=disc, edge="faint", layer=1)
    for path, side in zip(drawn.paths, drawn.sides, strict=True):
        stride = max(1, len(path) // 200)
        x, y = np.concatenate([path[:-1:stride], path[-1:]]).T
        plot.line(x, y, _PATH_COLOURS[side], width=1.2, opacity=0.5)
        plot.dots(x[-1:], y[-1:], _PATH_COLOURS[side], size=6.0)
    return chart.markup()


def plans_figure(drawn: PlannedTask) -> Markup:
    """What came, and every plan from where it was made."""
    points = np.concatenate([*drawn.paths, *drawn.plans])
    chart, plot, _ = _from_above(f"Plans of {drawn.policy}: {drawn.task}", points)
    for plan in drawn.plans:
        x, y = plan.T
        plot.line(x, y, "s2", width=0.8, opacity=0.5)
    for path in drawn.paths:
        x, y = path.T
        plot.line(x, y, "s1", width=1.6)
        plot.dots(x[:1], y[:1], "s1", size=6.0)
    return chart.markup()


def _from_above(label: str, points: npt.NDArray[np.float64]) -> tuple[Chart, Plot, float]:
    """An empty figure that holds the points [n, 2], at one scale both ways, and its pixels a unit."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.02 * max(float((high - low).max()), 1e-9)
    low, high = low - margin, high + margin
    scale = WIDTH / (high - low).max()
    width, height = scale * (high - low)
    chart = Chart(label, width, height)
    return chart, chart.bare(Scale(low[0], high[0], ()), Scale(low[1], high[1], ())), float(scale)
