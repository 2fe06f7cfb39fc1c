"""The report's section of results: those comparable in one group, with charts, table and differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mtrl.errors import ConfigError
from mtrl.evaluation.broken import BrokenEpisode
from mtrl.evaluation.comparison import Comparison, are_comparable, compare, require_comparable
from mtrl.evaluation.results import EvaluationResult
from mtrl.evaluation.table import all_task_names, coverage_lines

from .bar_charts import BarChart, Measured, charts_of, score_scale
from .figures import version_figure
from .scale import UNIT


@dataclass(frozen=True)
class ResultGroup:
    """Results under one protocol, on the same starts."""

    results: tuple[EvaluationResult, ...]
    """The newest of each label."""
    why_apart: str
    """Why these results are not in the first group; "" for the first."""
    legend: tuple[tuple[str, str], ...]
    charts: tuple[BarChart, ...]
    measured: tuple[Measured, ...]
    """The results with what the table shows of them."""
    comparisons: tuple[Comparison, ...]
    """Every policy against the group's first."""

    @property
    def kind(self) -> str:
        """What decides: "success" or "return" for all tasks, or "both"."""
        kinds = {task.score.kind for task in self.results[0].every_task}
        return kinds.pop() if len(kinds) == 1 else "both"

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that some policy has figures of."""
        return all_task_names(self.results)

    @property
    def coverage(self) -> list[str]:
        """What the means leave out, in words."""
        return coverage_lines(self.results)

    @property
    def broken(self) -> tuple[tuple[str, BrokenEpisode], ...]:
        """Label of the policy, and an episode that broke."""
        return tuple((result.policy.shown, one) for result in self.results for one in result.broken)

    @property
    def starts(self) -> str:
        """The starts in words."""
        first = self.results[0]
        every = first.every_episode
        counts = sorted(set(Counter(episode.task for episode in every).values()))
        episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        used = sorted({episode.start for episode in every})
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
        own = [result for result in evaluations if result.policy.shown == label]
        alike = [result for result in own if are_comparable(result, own[-1])]
        if len({result.policy.version for result in alike}) < 2 or not alike[0].normalised_tasks:
            continue
        versions = [float(result.policy.version) for result in alike]
        scores = [scores.mean for one in alike if (scores := Measured(one).scores) is not None]
        if scores:
            figure = version_figure(label, "score", versions, scores, score_scale(scores))
        else:
            means = [rate.estimate for result in alike if (rate := result.mean.success_any) is not None]
            figure = version_figure(label, "success", versions, means, UNIT)
        figures.append((label, "score" if scores else "success", figure))
    return tuple(figures)


def _labels(evaluations: Sequence[EvaluationResult]) -> list[str]:
    return list(dict.fromkeys(result.policy.shown for result in evaluations))


def _starts(result: EvaluationResult) -> set[tuple[str, int]]:
    """Task and start of the episodes that were played to their end."""
    return {(episode.task, episode.start) for episode in result.episodes}


def _newest(evaluations: Sequence[EvaluationResult]) -> list[EvaluationResult]:
    """The newest result of each label on each protocol; the evaluations come oldest first."""
    kept: list[EvaluationResult] = []
    for result in evaluations:
        older = next(
            (k for k in kept if k.policy.shown == result.policy.shown and are_comparable(k, result)), None
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
        legend=tuple((result.policy.shown, colours[result.policy.shown]) for result in results),
        charts=charts_of(measured, colours),
        measured=tuple(measured),
        comparisons=tuple(
            compare(result, results[0]) for result in results[1:] if _starts(result) & _starts(results[0])
        ),
    )
