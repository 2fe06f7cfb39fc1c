"""Comparisons as tables on the terminal, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from .comparison import Comparison, TaskComparison
from .formats import format_percent, format_plain, format_points, format_signed
from .groups import FEW_RUNS, GroupComparison, GroupSummary
from .pairs import left_out
from .results import EvaluationResult, TaskResult
from .statistics import Estimate
from .table import (
    MEAN_SCORE,
    MEAN_SUCCESS,
    SCORED,
    add_figures,
    add_measures,
    add_names,
    empty_table,
    starts_of,
)
from .task_names import TaskNames

NO_RANGE = (
    "Compared by return, task by task: a mean over tasks needs scores, such as "
    'Score("return", low, high) or Score("success") of a task of your own'
)
"""Said where no task has a score."""


def comparison_table(reference: EvaluationResult, comparisons: Sequence[Comparison]) -> Table:
    """One row per task and measure: the reference's level, then every policy's difference from it.

    Rates and normalised scores are in percent, their differences in percentage points; returns are in
    their own unit. "+3 -1" counts the starts gained and lost. The last row, bold, is the mean score, or the
    mean success where every task is measured by it. `reference` and the comparisons have their episodes in
    common.
    """
    first = comparisons[0]
    mixed = not reference.by_success
    what = "Difference" if mixed else "Success, %: difference"
    title = f"{what} from {reference.policy.shown} ({starts_of(reference)})"
    table = empty_table(title, _caption(first, mixed))
    shown = TaskNames(task.name for task in reference.tasks)
    add_names(table, shown)
    if mixed:
        add_measures(table)
    add_figures(table, reference.policy.shown)
    for comparison in comparisons:
        add_figures(table, comparison.better)
    for position, task in enumerate(reference.tasks):
        own = [next(t for t in comparison.tasks if t.name == task.name) for comparison in comparisons]
        rows = _task_rows(task, own)
        for index, (measured, cells) in enumerate(rows):
            last = position == len(reference.tasks) - 1 and index == len(rows) - 1
            head = Text("") if index else shown.cell(task.name)
            table.add_row(head, *map(Text, [*([measured] if mixed else []), *cells]), end_section=last)
    scores = [comparison.score for comparison in comparisons if comparison.score is not None]
    if scores:
        assert reference.mean.score is not None, "the comparisons have a mean score"
        cells = [f"{100 * reference.mean.score:.1f}", *(format_points(score) for score in scores)]
        heads = [MEAN_SCORE, "score, %"] if mixed else [MEAN_SUCCESS]
        table.add_row(*map(Text, [*heads, *cells]), style="bold")
    return table


def verdict(comparison: Comparison) -> str:
    """What a comparison says, in words and with its numbers."""
    pair = f"{comparison.better} against {comparison.reference}"
    if comparison.score is None:
        found = [_by_return(task, comparison.better) for task in comparison.tasks]
        return f"{pair}: {'; '.join(found)}. {NO_RANGE}"
    tests, mean = _tests(comparison), format_signed(comparison.score, 100, 1)
    averaged = [task for task in comparison.tasks if task.score is not None]
    starts = sum(task.starts for task in averaged)
    over = f"{_counted(len(averaged), 'task')}, {_counted(starts, 'start')}"
    said = _excludes(comparison.score, 0.0, comparison.better)
    named = MEAN_SUCCESS if all(task.kind == "success" for task in comparison.tasks) else MEAN_SCORE
    broke = f"; {_counted(len(comparison.broken), 'start')} left out" if comparison.broken else ""
    return f"{pair}: {mean} points in the {named} of {over}{broke}; {said}{tests}"


def group_table(summaries: Sequence[GroupSummary], comparisons: Sequence[GroupComparison]) -> Table:
    """One column per group of runs: mean score per task, then the aggregates over runs and tasks.

    The first group is the reference of the rows that compare.
    """
    runs = sorted({summary.runs for summary in summaries})
    few = f"\nfewer than {FEW_RUNS} runs give intervals that are too narrow" if runs[0] < FEW_RUNS else ""
    counted = " to ".join(dict.fromkeys((str(runs[0]), str(runs[-1]))))
    by_return = summaries[0].mean is None
    measured, shown_as = ("Return", format_plain) if by_return else ("Normalised score, %", format_percent)
    table = empty_table(
        f"{measured} ({counted} runs a group)",
        f"in brackets: bootstrap over whole runs{few}",
    )
    names = [name for name, _ in summaries[0].tasks]
    shown = TaskNames(names)
    add_names(table, shown)
    for summary in summaries:
        add_figures(table, summary.name)
    for position, name in enumerate(names):
        cells = [shown_as(dict(summary.tasks)[name]) for summary in summaries]
        table.add_row(shown.cell(name), *map(Text, cells), end_section=position == len(names) - 1)
    rows = {
        MEAN_SCORE: [one.mean for one in summaries],
        "interquartile mean": [one.interquartile_mean for one in summaries],
        "optimality gap": [one.optimality_gap for one in summaries],
    }
    for name, found in rows.items():
        if cells := [format_percent(one) for one in found if one]:
            table.add_row(name, *map(Text, cells), style="bold", end_section=name == "optimality gap")
    against = {
        "difference of means": [one.mean for one in comparisons],
        "difference of interquartile means": [one.interquartile_mean for one in comparisons],
    }
    for name, found in against.items():
        if cells := [format_signed(one, 100, 1) for one in found if one]:
            table.add_row(name, "reference", *map(Text, cells))
    if comparisons:
        chances = [format_percent(one.improvement) for one in comparisons]
        table.add_row("probability of improvement", "reference", *map(Text, chances))
    return table


def group_verdict(comparison: GroupComparison) -> str:
    """What a comparison of groups says, in words and with its numbers."""
    chance = comparison.improvement
    ours, theirs = comparison.runs
    few = f" ({ours} against {theirs} runs: too few to rely on it)" if min(ours, theirs) < FEW_RUNS else ""
    return (
        f"{comparison.better} against {comparison.reference}: a run of {comparison.better} beats one of "
        f"{comparison.reference} with probability {chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]; "
        f"{_excludes(chance, 0.5, comparison.better)}{few}"
    )


def _caption(comparison: Comparison, mixed: bool) -> str:
    lines = [f"in brackets: {100 * comparison.confidence:.4g}% intervals, paired bootstrap over starts"]
    if any(task.gained is not None for task in comparison.tasks):
        lines.append("+gained -lost: starts that one of the two alone solved")
    if mixed and comparison.score is not None:
        lines.append(SCORED)
        absent = [task.name for task in comparison.tasks if task.score is None]
        lines += [f"{MEAN_SCORE}: without {', '.join(absent)}: a return without a range"] if absent else []
    if comparison.broken:
        lines.append(f"left out for all, since an episode broke: {left_out(comparison.broken)}")
    return "\n".join(lines)


def _task_rows(task: TaskResult, own: Sequence[TaskComparison]) -> list[tuple[str, list[str]]]:
    if task.score.kind == "success":
        cells = [f"{100 * task.success_any.rate:.1f}"]
        cells += [f"{format_points(one.score)} +{one.gained} -{one.lost}" for one in own if one.score]
        return [("success, %", cells)]
    rows = []
    if task.is_normalised:
        cells = [f"{100 * task.mean_score:.1f}"]
        rows.append(("score, %", cells + [format_points(one.score) for one in own if one.score]))
    returns = [one.episode_return for one in own]
    small = max(abs(x) for found in returns for x in (found.value, found.low, found.high)) < 10
    cells = [f"{task.mean_return:.{3 if small else 1}f}"]
    rows.append(("return", cells + [format_signed(found, 1, 3 if small else 1) for found in returns]))
    return rows


def _tests(comparison: Comparison) -> str:
    if comparison.changed is None or comparison.mcnemar is None or comparison.sequential is None:
        return ""
    gained, lost = comparison.changed
    return (
        f". Starts gained {gained}, lost {lost}: exact McNemar p = {comparison.mcnemar:.2g}, "
        f"p = {comparison.sequential.p_value:.2g} if more starts may still be added"
    )


def _by_return(task: TaskComparison, better: str) -> str:
    """What one task says whose score has no range."""
    found = format_signed(task.episode_return, 1, 1)
    over = f"{task.name}, {_counted(task.starts, 'start')}"
    return f"{found} in the return of {over}; {_excludes(task.episode_return, 0.0, better)}"


def _excludes(estimate: Estimate, value: float, better: str) -> str:
    if not estimate.has_interval:
        return "a single start for a task gives no interval: no difference is shown"
    if not estimate.excludes(value):
        return f"the interval includes {value:g}: no difference is shown"
    side = "better" if estimate.value > value else "worse"
    return f"the interval excludes {value:g}: {better} is {side}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
