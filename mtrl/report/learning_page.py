"""What the page shows of learning and of conflict: captions, legends and figures, ready for the template."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from .agent_panels import PanelCurves, heat_panel, profile_panel
from .chart import COLOURS
from .conflict import Conflict, Conflicts
from .conflict_figures import conflict_share_figure, heat_figure, smallest_figure
from .curves import Curve, Curves
from .figures import curve_figure
from .learning import Learnt, LearntRow
from .learning_figures import (
    MANY_TASKS,
    Levels,
    PanelShape,
    change_figure,
    change_scale,
    lines_figure,
    panel_figure,
    shares_figure,
)
from .scale import Ticks, percent, signed_number
from .task_curves import CurveGroup, GroupedCurves, NamedCurve, TaskCurves

OPEN_FIGURES = 6
"""Curves of a file, or histograms of episodes, that stand open; the others fold out."""

_TORSO_WORDS = {
    "dormant_units": ("dormant units", "share of units that hardly fire, mean over layers"),
    "gate_entropy": ("gate entropy", "0: one expert a sample; 1: all experts alike"),
    "task_expert_information": ("task–expert information", "nats; 0: all tasks use the experts alike"),
    "expert_load_min": ("smallest expert load", "share of samples; 0: an expert is never used"),
    "expert_load_max": ("largest expert load", "share of samples; 1: one expert does all"),
    "load_variation": ("variation of the loads", "standard deviation over mean; 0 is even"),
    "expert_cosine": ("likeness of the experts", "cosine of two experts' outputs; 1: copies of each other"),
}
"""Diagnostic of a torso -> its name and what its values mean."""

_WITHIN_ONE = ("dormant_units", "gate_entropy", "expert_load_min", "expert_load_max", "expert_cosine")


@dataclass(frozen=True)
class Panel:
    """One task."""

    name: str
    shown: str
    """The last return, and success, in words."""
    value: float | None
    figure: Markup | None


@dataclass(frozen=True)
class Lines:
    """One figure of several lines."""

    name: str
    meaning: str
    legend: tuple[tuple[str, str], ...]
    """Line -> colour class."""
    figure: Markup | None
    last: tuple[tuple[str, str], ...] = ()
    """Line -> its last value, where there is no legend."""
    wide: bool = False
    """Whether it takes two columns."""


@dataclass(frozen=True)
class LearningPart:
    """One metrics file."""

    curves: Curves
    panels: tuple[Panel, ...]
    small: bool
    marks: tuple[str, ...]
    """What the panels show apart from the line, of "evaluated", "random", "constant" and "success"."""
    shares: tuple[tuple[str, str], ...]
    shares_figure: Markup | None
    shares_ticks: Ticks
    torsos: tuple[Lines, ...]
    """Diagnostics of torsos and their experts, one figure each."""
    inside: tuple[Lines, ...]
    """What the agent wants to be shown, one figure a panel."""
    folded: tuple[Lines, ...]
    """Losses, values and the like, one figure a metric."""
    legend: tuple[tuple[str, str], ...]
    """Task -> colour class in these; empty where there are too many tasks for colours."""
    shown: tuple[tuple[Curve, Markup | None], ...]
    hidden: tuple[tuple[Curve, Markup | None], ...]


def learning_parts(files: Sequence[GroupedCurves], learnt: Learnt | None) -> list[LearningPart]:
    """Every metrics file; `learnt` is about the run's own, "metrics.jsonl"."""
    return [_part(file, learnt if file.curves.source == "metrics.jsonl" else None) for file in files]


def shows_success(task: TaskCurves, learnt: Learnt | None) -> bool:
    """Whether a task's panel has a figure of success: where it is measured, and was logged."""
    measured = task.ever_solved if learnt is None else task.name in learnt.by_success
    return measured and any(
        curve is not None and curve.values for curve in (task.success, task.evaluated_success)
    )


def learnt_lines(learnt: Learnt) -> list[tuple[LearntRow, int, Markup | None]]:
    """The rows of the table, how many rows the task's name covers (0 below the first), and their figures."""
    lines = []
    for task, group in itertools.groupby(learnt.rows, key=lambda row: row.task):
        rows = list(group)
        for index, row in enumerate(rows):
            figure = None
            if row.before is not None and row.after is not None:
                scale = change_scale(row.before, row.after, row.measured)
                figure = change_figure(f"{task}, {row.measured}", row.before, row.after, scale)
            lines.append((row, 0 if index else len(rows), figure))
    return lines


def conflict_parts(
    conflicts: Conflicts | None,
) -> list[tuple[Conflict, list[tuple[str, Markup]], Markup | None]]:
    """Every part of an agent with its (caption, figure) pairs over the steps and its heat map; None without
    a pair that was measured.
    """
    parts = []
    for found in conflicts.parts if conflicts is not None else ():
        figures: list[tuple[str, Markup]] = []
        several = len(found.pairs) > 1
        if found.share.values and several:
            figures.append(("share of pairs that pull apart", conflict_share_figure(found)))
        if found.share.values:
            caption = "smallest cosine of a pair" if several else "cosine of the pair"
            figures.append((caption, smallest_figure(found)))
        parts.append((found, figures, heat_figure(found) if found.pairs else None))
    return parts


def _part(file: GroupedCurves, learnt: Learnt | None) -> LearningPart:
    small = len(file.tasks) > MANY_TASKS
    success = [shows_success(task, learnt) for task in file.tasks]
    shape = PanelShape(file.horizontal(2 if small else 4), small, any(success))
    panels = tuple(_panel(*one, shape, learnt) for one in zip(file.tasks, success, strict=True))
    levels = list(learnt.levels.values()) if learnt is not None else []
    evaluated = any(task.evaluated_returns is not None for task in file.tasks) or any(
        x.trained for x in levels
    )
    there = {
        "evaluated": evaluated,
        "random": any(x.random for x in levels),
        "constant": any(x.constant for x in levels),
        "success": any(success),
    }
    # next to panels of tasks, plain curves are secondary
    opened = 0 if panels else OPEN_FIGURES
    shares = [one for one in file.shares if one.curve.values]
    return LearningPart(
        curves=file.curves,
        panels=panels,
        small=small,
        marks=tuple(name for name, shown in there.items() if shown),
        shares=tuple((one.name, percent(one.curve.values[-1])) for one in shares),
        shares_figure=shares_figure(shares, file.horizontal()) if shares else None,
        shares_ticks=file.horizontal().placed(),
        torsos=tuple(_torso(group, file) for group in file.torsos),
        inside=tuple(_agent_panel(one, file) for one in file.panels),
        folded=tuple(_lines(group, file, dict(_legend(file))) for group in file.by_task),
        legend=_legend(file),
        shown=_drawn(file.plain[:opened]),
        hidden=_drawn(file.plain[opened:]),
    )


def _panel(task: TaskCurves, success: bool, shape: PanelShape, learnt: Learnt | None) -> Panel:
    levels, rows = (Levels(), ()) if learnt is None else (learnt.levels[task.name], learnt.rows)
    trained = next((row.after for row in rows if (row.task, row.measured) == (task.name, "success")), None)
    drawn = [curve for curve in (task.returns, task.evaluated_returns) if curve is not None and curve.values]
    value = drawn[0].values[-1] if drawn else None
    shown = "no finite return" if value is None else signed_number(value)
    if success and task.success is not None and task.success.values:
        shown += f" · {percent(task.success.values[-1])}"
    figure = None
    if drawn or success:
        figure = panel_figure(task, levels, shape, success=success, trained=trained)
    return Panel(task.name, shown, value, figure)


def _torso(group: CurveGroup, file: GroupedCurves) -> Lines:
    network, _, name = group.name.rpartition("/")
    words, meaning = _TORSO_WORDS.get(name, (name.replace("_", " "), ""))
    drawn = [one for one in group.curves if one.curve.values]
    colours = {one.name: f"s{index + 1}" for index, one in enumerate(drawn)} if len(drawn) <= COLOURS else {}
    lines = _lines(group, file, colours, name in _WITHIN_ONE)
    legend = tuple(colours.items()) if len(drawn) > 1 else ()
    return replace(lines, name=f"{network}: {words}" if network else words, meaning=meaning, legend=legend)


def _agent_panel(shown: PanelCurves, file: GroupedCurves) -> Lines:
    panel, colours = shown.panel, dict(_legend(file))
    if panel.kind == "heat":
        return Lines(panel.title, panel.meaning, (), heat_panel(shown), wide=True)
    if panel.kind == "profile":
        return Lines(
            panel.title, f"{panel.meaning}; dashed: the first record", (), profile_panel(shown, colours)
        )
    together = [one.name for one in shown.curves if not one.task]
    if len(together) == len(shown.curves):
        colours = {name: f"s{index % COLOURS + 1}" for index, name in enumerate(together)}
    elif together:
        colours = {one.name: colours.get(one.task, "pale") for one in shown.curves}
        colours |= dict.fromkeys(together, "ink")
    group = CurveGroup(panel.title, tuple(NamedCurve(one.name, one.curve) for one in shown.curves))
    lines = _lines(group, file, colours, panel.unit_range, panel.level)
    legend = tuple((name, colours[name]) for name in together) if len(shown.curves) > 1 else ()
    return replace(lines, name=panel.title, meaning=panel.meaning, legend=legend)


def _lines(
    group: CurveGroup,
    file: GroupedCurves,
    colours: Mapping[str, str],
    unit_range: bool = False,
    level: float | None = None,
) -> Lines:
    drawn = [one for one in group.curves if one.curve.values]
    name = group.name.replace("_", " ")
    if not drawn:
        return Lines(name, "", (), None)
    chosen = [colours[one.name] for one in drawn] if colours else []
    figure = lines_figure(name, drawn, chosen, file.horizontal(), unit_range=unit_range, level=level)
    if colours:
        return Lines(name, "", (), figure)
    ordered = sorted(drawn, key=lambda one: one.curve.values[-1])
    ends = tuple((one.name, signed_number(one.curve.values[-1])) for one in (ordered[0], ordered[-1]))
    return Lines(name, "", (), figure, ends)


def _legend(file: GroupedCurves) -> tuple[tuple[str, str], ...]:
    """Task -> colour class, the same in all figures of a file; empty for more tasks than colours."""
    names = dict.fromkeys(task.name for task in file.tasks)
    names |= dict.fromkeys(one.name for group in file.by_task for one in group.curves)
    names |= dict.fromkeys(one.task for panel in file.panels for one in panel.curves if one.task)
    return tuple((name, f"s{index + 1}") for index, name in enumerate(names)) if len(names) <= COLOURS else ()


def _drawn(curves: Sequence[Curve]) -> tuple[tuple[Curve, Markup | None], ...]:
    return tuple((curve, curve_figure(curve) if curve.values else None) for curve in curves)
