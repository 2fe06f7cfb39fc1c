"""The report's success section: which results stand side by side, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mtrl.errors import ConfigError

from ..comparison import Comparison, are_comparable, compare, require_comparable
from ..results import EvaluationResult, Rate, TaskResult
from .figures import bars_figure, version_figure

MEAN = "mean of all tasks"


@dataclass(frozen=True)
class BarRow:
    """One task's bars."""

    name: str
    figure: Markup
    rates: tuple[Rate, ...]


@dataclass(frozen=True)
class TableRow:
    """One policy on one task, or on the mean of all."""

    name: str
    """The task."""
    policy: str
    span: int
    """Rows that the task's name covers, 0 when a row above prints it."""
    episodes: int
    any: Rate
    end: Rate
    score: float
    task: TaskResult | None
    """What only a single task has (return, lengths); None for the mean of all."""


@dataclass(frozen=True)
class SuccessGroup:
    """Results under one protocol, on the same starts."""

    results: tuple[EvaluationResult, ...]
    """The newest of each label."""
    why_apart: str
    """Why these results are not in the first group; "" for the first."""
    legend: tuple[tuple[str, str], ...]
    """Label -> colour class."""
    bars: tuple[BarRow, ...]
    """The mean first, then every task."""
    table: tuple[TableRow, ...]
    comparisons: tuple[Comparison, ...]
    """Every policy against the group's first."""

    @property
    def starts(self) -> str:
        """The starts in words."""
        first = self.results[0]
        counts = sorted({task.episodes for task in first.tasks})
        episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        used = sorted({episode.start for episode in first.episodes})
        span = f"{used[0]} to {used[-1]}" if len(used) > 1 else f"{used[0]}"
        return f"{first.split.name.lower()} starts {span}, {episodes} a task"


def success_groups(evaluations: Sequence[EvaluationResult]) -> tuple[SuccessGroup, ...]:
    """The newest result of each policy, in groups that may be compared."""
    colours = {label: f"s{index + 1}" for index, label in enumerate(_labels(evaluations))}
    groups: list[list[EvaluationResult]] = []
    for result in _newest(evaluations):
        group = next((group for group in groups if are_comparable(group[0], result)), None)
        if group is None:
            groups.append([result])
        else:
            group.append(result)
    return tuple(_group(group, groups[0][0], colours) for group in groups)


def version_figures(evaluations: Sequence[EvaluationResult]) -> tuple[tuple[str, Markup], ...]:
    """(label, figure) for every policy with several versions under one protocol."""
    figures = []
    for label in _labels(evaluations):
        own = [result for result in evaluations if result.policy.label == label]
        alike = [result for result in own if are_comparable(result, own[-1])]
        if len({result.policy.version for result in alike}) > 1:
            versions = [float(result.policy.version) for result in alike]
            rates = [result.mean.success_any for result in alike]
            figures.append((label, version_figure(label, versions, rates)))
    return tuple(figures)


def _labels(evaluations: Sequence[EvaluationResult]) -> list[str]:
    return list(dict.fromkeys(result.policy.label for result in evaluations))


def _newest(evaluations: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    """The newest result of each label on each protocol; the evaluations come oldest first."""
    kept: list[EvaluationResult] = []
    for result in evaluations:
        older = next(
            (k for k in kept if k.policy.label == result.policy.label and are_comparable(k, result)), None
        )
        if older is None:
            kept.append(result)
        else:
            kept[kept.index(older)] = result
    return kept


def _group(
    results: Sequence[EvaluationResult], main: EvaluationResult, colours: dict[str, str]
) -> SuccessGroup:
    try:
        require_comparable(main, results[0])
        why_apart = ""
    except ConfigError as problem:
        why_apart = str(problem)
    labels = [result.policy.label for result in results]
    names = results[0].task_names
    bars = [_bar_row(MEAN, results, [result.mean.success_any for result in results], colours)]
    bars += [
        _bar_row(name, results, [r.success_any for r in _of_task(results, name)], colours) for name in names
    ]
    return SuccessGroup(
        results=tuple(results),
        why_apart=why_apart,
        legend=tuple((label, colours[label]) for label in labels),
        bars=tuple(bars),
        table=tuple(_table(results)),
        comparisons=tuple(compare(result, results[0]) for result in results[1:]),
    )


def _bar_row(
    name: str, results: Sequence[EvaluationResult], rates: Sequence[Rate], colours: dict[str, str]
) -> BarRow:
    labels = [result.policy.label for result in results]
    bars = [(label, colours[label], rate) for label, rate in zip(labels, rates, strict=True)]
    return BarRow(name, bars_figure(name, bars), tuple(rates))


def _of_task(results: Sequence[EvaluationResult], name: str) -> list[TaskResult]:
    return [task for result in results if (task := result.task(name)) is not None]


def _table(results: Sequence[EvaluationResult]) -> list[TableRow]:
    spans = [len(results)] + [0] * (len(results) - 1)
    rows = []
    for result, span in zip(results, spans, strict=True):
        mean, label, count = result.mean, result.policy.label, len(result.episodes)
        rows.append(TableRow(MEAN, label, span, count, mean.success_any, mean.success_end, mean.score, None))
    for name in results[0].task_names:
        for result, task, span in zip(results, _of_task(results, name), spans, strict=True):
            any_, end, score = task.success_any, task.success_end, task.mean_score
            rows.append(TableRow(name, result.policy.label, span, task.episodes, any_, end, score, task))
    return rows
