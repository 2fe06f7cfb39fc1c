"""The report's section of results: those comparable in one group, with charts, table and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mtrl.errors import ConfigError
from mtrl.evaluation.comparison import Comparison, are_comparable, compare, require_comparable
from mtrl.evaluation.results import EvaluationResult, Rate, TaskResult
from mtrl.evaluation.statistics import Estimate

from .bar_charts import MEAN, BarChart, Measured, charts_of, estimate_of, score_scale
from .figures import version_figure
from .scale import UNIT


@dataclass(frozen=True)
class TableRow:
    """One policy on one task, or on the mean of all."""

    name: str
    policy: str
    span: int
    """Rows that the task's name covers, 0 when a row above prints it."""
    episodes: int
    any: Rate | None
    """Success after any decision; None for a task measured by its return, and a mean without other tasks."""
    end: Rate | None
    """Success after the last decision; None as for `any`."""
    score: float | None
    """Normalised score; None for a return without a range."""
    score_interval: Estimate | None
    """The score resampled; None where success alone decides, whose interval is that of `any`."""
    task: TaskResult | None
    """What only a single task has (return, lengths); None for the mean of all."""


@dataclass(frozen=True)
class ResultGroup:
    """Results under one protocol, on the same starts."""

    results: tuple[EvaluationResult, ...]
    """The newest of each label."""
    why_apart: str
    """Why these results are not in the first group; "" for the first."""
    legend: tuple[tuple[str, str], ...]
    charts: tuple[BarChart, ...]
    table: tuple[TableRow, ...]
    """The mean first, then every task."""
    comparisons: tuple[Comparison, ...]
    """Every policy against the group's first."""

    @property
    def measured(self) -> str:
        """What decides: "success" or "return" for all tasks, or "both"."""
        kinds = {task.score.kind for task in self.results[0].tasks}
        return kinds.pop() if len(kinds) == 1 else "both"

    @property
    def without_score(self) -> tuple[str, ...]:
        """Tasks that no mean score holds: a return without a range."""
        return tuple(task.name for task in self.results[0].tasks if not task.is_normalised)

    @property
    def starts(self) -> str:
        """The starts in words."""
        first = self.results[0]
        counts = sorted({task.episodes for task in first.tasks})
        episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        used = sorted({episode.start for episode in first.episodes})
        span = f"{used[0]} to {used[-1]}" if len(used) > 1 else f"{used[0]}"
        return f"{first.split.name.lower()} starts {span}, {episodes} a task"


def result_groups(evaluations: Sequence[EvaluationResult]) -> tuple[ResultGroup, ...]:
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


def version_figures(evaluations: Sequence[EvaluationResult]) -> tuple[tuple[str, str, Markup], ...]:
    """(label, what is measured, figure) for every policy with several versions under one protocol.

    Success where it alone decides, else the normalised score; nothing for returns without a range.
    """
    figures = []
    for label in _labels(evaluations):
        own = [result for result in evaluations if result.policy.label == label]
        alike = [result for result in own if are_comparable(result, own[-1])]
        if len({result.policy.version for result in alike}) < 2 or not alike[0].normalised_tasks:
            continue
        versions = [float(result.policy.version) for result in alike]
        scores = [scores.mean for one in alike if (scores := Measured(one).scores) is not None]
        if scores:
            figure = version_figure(label, "score", versions, scores, score_scale(scores))
        else:
            means = [estimate_of(result.mean.success_any) for result in alike]
            figure = version_figure(label, "success", versions, means, UNIT)
        figures.append((label, "score" if scores else "success", figure))
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
) -> ResultGroup:
    try:
        require_comparable(main, results[0])
        why_apart = ""
    except ConfigError as problem:
        why_apart = str(problem)
    measured = [Measured(result) for result in results]
    return ResultGroup(
        results=tuple(results),
        why_apart=why_apart,
        legend=tuple((result.policy.label, colours[result.policy.label]) for result in results),
        charts=charts_of(measured, colours),
        table=tuple(_table(measured)),
        comparisons=tuple(compare(result, results[0]) for result in results[1:]),
    )


def _table(results: Sequence[Measured]) -> list[TableRow]:
    spans = [len(results)] + [0] * (len(results) - 1)
    rows = []
    for one, span in zip(results, spans, strict=True):
        result, mean = one.result, one.mean_success
        rows.append(
            TableRow(
                name=MEAN,
                policy=result.policy.label,
                span=span,
                episodes=len(result.episodes),
                any=mean.success_any if mean else None,
                end=mean.success_end if mean else None,
                score=result.mean.score if result.normalised_tasks else None,
                score_interval=one.scores.mean if one.scores else None,
                task=None,
            )
        )
    for name in results[0].result.task_names:
        for one, span in zip(results, spans, strict=True):
            rows.append(_task_row(one, name, span))
    return rows


def _task_row(one: Measured, name: str, span: int) -> TableRow:
    task = one.result.task(name)
    assert task is not None, "comparable results have the same tasks"
    by_success = task.score.kind == "success"
    return TableRow(
        name=name,
        policy=one.result.policy.label,
        span=span,
        episodes=task.episodes,
        any=task.success_any if by_success else None,
        end=task.success_end if by_success else None,
        score=task.mean_score if task.is_normalised else None,
        score_interval=None if by_success else one.score(name),
        task=task,
    )
