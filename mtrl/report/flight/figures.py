"""The figures of a flight: lines over time with their limits, and the guard's state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from mtrl.deployment import Flight, GuardState
from mtrl.deployment.artefact.joints import UNITS
from mtrl.deployment.realtime.records import Column
from mtrl.deployment.robots.site import Site

from ..chart import Chart
from ..figures import WIDTH
from ..scale import Scale, signed_number

Float64 = npt.NDArray[np.float64]

POINTS = 600
"""Most points of a line."""
MOST_STATES = 64
"""Entries of an observation that are drawn; of a longer one the first."""
HEIGHT = 159
COLOURS = ("s1", "s2")
GAP = 1.05
"""Share of the limits' range that a figure shows."""


@dataclass(frozen=True)
class Panel:
    """One figure of the page."""

    caption: str
    note: str
    figure: Markup


def time_of(flight: Flight) -> Float64:
    """Seconds since the first decision, [N]."""
    read = flight.column(Column.READ)
    return read - read[0]


def command_panels(flight: Flight) -> list[Panel]:
    """What was proposed and what was commanded of every dimension, within its limit."""
    limit = flight.guard.action_limit
    limits = () if flight.guard.choices else (-limit, limit)
    names = _entries(flight, "action", flight.command.shape[1])
    return [
        _lines(name, time_of(flight), {"proposed": proposed, "commanded": commanded}, limits)
        for name, proposed, commanded in zip(names, flight.proposal.T, flight.command.T, strict=True)
    ]


def joint_panels(flight: Flight) -> list[Panel]:
    """What was measured and what was commanded of every joint, within its limits and in its unit."""
    if not flight.names:
        return []
    count = len(flight.names)
    _, position, velocity, effort, sent, _ = np.split(
        flight.joints, flight.command.shape[1] + np.arange(5) * count, axis=1
    )
    seconds, found = time_of(flight), []
    for index, joint in enumerate(Site.from_json(flight.site).joints):
        unit, measured = UNITS[joint.unit], {"measured": position[:, index], "commanded": sent[:, index]}
        values = {name: line / unit for name, line in measured.items()}
        found.append(_lines(f"{joint.name}, {joint.unit}", seconds, values, (joint.low, joint.high)))
        speed, limits = velocity[:, index] / unit, (-joint.velocity, joint.velocity)
        found.append(_lines(f"{joint.name}, {joint.unit}/s", seconds, {"measured": speed}, limits))
        if joint.effort is not None:
            limits, name = (-joint.effort, joint.effort), f"{joint.name}, {'N m' if joint.turns else 'N'}"
            found.append(_lines(name, seconds, {"measured": effort[:, index]}, limits))
    return found


def state_panels(flight: Flight) -> list[Panel]:
    """Every entry of the observation."""
    states = flight.observation[:, :MOST_STATES]
    names = _entries(flight, "observation", flight.observation.shape[1])
    return [
        _lines(name, time_of(flight), {"observed": line}, ())
        for name, line in zip(names, states.T, strict=False)
    ]


def guard_figure(flight: Flight) -> Markup:
    """The guard's state over time, a step for every change."""
    seconds, states = time_of(flight), flight.column(Column.STATE)
    shown = sorted({int(state) for state in states})
    names = [GuardState(state).name for state in shown]
    chart = Chart(f"State of the guard: {', '.join(names)}", 2 * WIDTH, 24 * len(shown) + 40)
    place = {state: row for row, state in enumerate(shown)}
    rows = np.array([place[int(state)] for state in states], dtype=np.float64)
    across = Scale.linear(0.0, max(float(seconds[-1]), 1e-3), 4, snap=False)
    plot = chart.plot(across, Scale(-0.5, len(shown) - 0.5, ()))
    changes = np.flatnonzero(np.diff(rows)) + 1
    ends = [0, *changes.tolist(), len(rows)]
    plot.rectangles(
        [
            (
                float(seconds[begin]),
                rows[begin] - 0.3,
                float(seconds[min(end, len(rows) - 1)]),
                rows[begin] + 0.3,
            )
            for begin, end in itertools.pairwise(ends)
        ],
        ["s2" if shown[int(rows[begin])] >= GuardState.HOLD else "s3" for begin in ends[:-1]],
        [names[int(rows[begin])] for begin in ends[:-1]],
    )
    for row, name in enumerate(names):
        plot.text(0.0, row, name, "ink", "left", shift=(6, 0))
    return chart.markup()


def _lines(caption: str, seconds: Float64, lines: dict[str, Float64], limits: Sequence[float]) -> Panel:
    kept = np.unique(np.linspace(0, len(seconds) - 1, min(POINTS, len(seconds))).round().astype(int))
    finite = [line[np.isfinite(line)] for line in lines.values()]
    values = np.concatenate([*finite, np.asarray(limits)])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    last = ", ".join(f"{name} {signed_number(float(line[-1]))}" for name, line in lines.items())
    chart = Chart(f"{caption}, last: {last}", WIDTH, HEIGHT)
    across = Scale.linear(0.0, max(float(seconds[-1]), 1e-3), 3, snap=False)
    plot = chart.plot(across, Scale.linear(low, high, 3))
    for limit in limits:
        plot.line((across.low, across.high), (limit, limit), "soft", "limit", width=1.0, dash=(3, 3))
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        drawn = kept[np.isfinite(line[kept])]
        if len(drawn):
            plot.line(seconds[drawn], line[drawn], colour, name)
    return Panel(caption, " · ".join(lines), chart.markup())


def _entries(flight: Flight, what: str, count: int) -> list[str]:
    """Terms of `robot.yaml` where the flight has one, else numbers."""
    if not flight.site:
        return [f"{what} {index}" for index in range(count)]
    from mtrl.deployment.robots.fit import named_entries

    observation, action = named_entries(Site.from_json(flight.site), flight.task)
    return [item.term for item in (observation if what == "observation" else action)]
