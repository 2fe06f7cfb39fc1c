"""The curves of one metrics file grouped for the page: tasks, shares, torsos, the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .agent_panels import PanelCurves, panel_curves
from .curves import Curve, Curves
from .scale import Scale

OWN = ("return", "success", "evaluation_return", "evaluation_success", "share")
"""Metrics of a task that its panel or the shares' figure shows; other metrics of tasks fold away."""


@dataclass(frozen=True)
class TaskCurves:
    """What one task's panel shows; None for what was not logged."""

    name: str
    returns: Curve | None
    """While learning, exploration included."""
    success: Curve | None
    """While learning, exploration included."""
    evaluated_returns: Curve | None
    """Evaluated while learning, on fixed starts without exploration."""
    evaluated_success: Curve | None
    """Evaluated while learning, on fixed starts without exploration."""

    @property
    def ever_solved(self) -> bool:
        """Whether any episode was logged as a success."""
        return any(
            max(curve.values, default=0.0) > 0 for curve in (self.success, self.evaluated_success) if curve
        )


@dataclass(frozen=True)
class NamedCurve:
    """One line among several."""

    name: str
    curve: Curve


@dataclass(frozen=True)
class CurveGroup:
    """One metric of several tasks, or of several layers, drawn in one figure."""

    name: str
    curves: tuple[NamedCurve, ...]


@dataclass(frozen=True)
class GroupedCurves:
    """A metrics file; every curve stands in one part, but where several panels of its agent show it."""

    curves: Curves
    tasks: tuple[TaskCurves, ...]
    """Tasks with a return, in the order given, the others by name."""
    shares: tuple[NamedCurve, ...]
    """`share/{task}` by task."""
    torsos: tuple[CurveGroup, ...]
    """`torso/{network}/{name}`, one line per layer, by network."""
    panels: tuple[PanelCurves, ...]
    """What the agent wants to be shown."""
    by_task: tuple[CurveGroup, ...]
    """Other metrics of tasks, such as losses, one line per task."""
    plain: tuple[Curve, ...]
    """All other curves, in the file's order of interest."""

    def horizontal(self, ticks: int = 4) -> Scale:
        """The steps of the file from 0 on, which every panel shares, with about so many ticks."""
        ends = [curve.steps[-1] for curve in self.curves.curves if curve.steps]
        return Scale.linear(0.0, max(ends, default=1.0), ticks, snap=False)


def grouped(curves: Curves, order: Sequence[str] = ()) -> GroupedCurves:
    """Sorts the curves of a file; `order` holds tasks known from elsewhere, such as an evaluation."""
    found = {curve.name: curve for curve in curves.curves}
    named = {
        task for name in found for kind in OWN if (task := name.removeprefix(f"{kind}/")) != name and task
    }
    tasks = [task for task in dict.fromkeys(order) if _metrics_of(task, found)]
    tasks += sorted(named - set(tasks))
    inside = panel_curves(curves, tasks)
    for name in {one.curve.name for panel in inside for one in panel.curves}:
        del found[name]
    panels, shares = [], []
    groups: dict[str, list[NamedCurve]] = {}
    for task in tasks:
        own = {kind: found.pop(f"{kind}/{task}", None) for kind in OWN}
        if own["share"]:
            shares.append(NamedCurve(task, own["share"]))
        if own["return"] or own["evaluation_return"]:
            panels.append(
                TaskCurves(
                    task, own["return"], own["success"], own["evaluation_return"], own["evaluation_success"]
                )
            )
        else:
            # a success without a return belongs to no panel
            found |= {f"{kind}/{task}": curve for kind, curve in own.items() if curve and kind != "share"}
        for name in _metrics_of(task, found):
            metric = name.removesuffix(f"/{task}")
            groups.setdefault(metric, []).append(NamedCurve(task, found.pop(name)))
    torsos = _torsos(found)
    return GroupedCurves(
        curves,
        tuple(panels),
        tuple(shares),
        torsos,
        inside,
        tuple(CurveGroup(name, tuple(lines)) for name, lines in sorted(groups.items())),
        tuple(found.values()),
    )


def _metrics_of(task: str, found: dict[str, Curve]) -> list[str]:
    return [name for name in found if name.endswith(f"/{task}") and not name.startswith("torso/")]


def _torsos(found: dict[str, Curve]) -> tuple[CurveGroup, ...]:
    """Takes `torso/{network}/{name}` and `torso/{network}/{name}/{layer}` out of `found`."""
    groups: dict[str, list[NamedCurve]] = {}
    for name in sorted(found, key=lambda name: [(len(part), part) for part in name.split("/")]):
        if not name.startswith("torso/"):
            continue
        head, _, layer = name.removeprefix("torso/").rpartition("/")
        numbered = layer.isdigit() and "/" in head
        group = head if numbered else name.removeprefix("torso/")
        line = NamedCurve(f"layer {layer}" if numbered else "all layers", found.pop(name))
        groups.setdefault(group, []).append(line)
    return tuple(CurveGroup(name, tuple(lines)) for name, lines in sorted(groups.items()))
