"""Results as a table on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.text import Text

from mtrl.errors import ConfigError
from mtrl.rollout import HELD_OUT

from .comparison import require_comparable
from .formats import format_percent, format_plain, format_rate
from .pairs import left_out
from .results import EvaluationResult
from .statistics import Estimate, bootstrap_means
from .task_names import TaskNames, TaskTable

SCORE_SEED = 0
"""Seed of the resampling behind every interval of a score, so that a table repeats itself."""

MEAN_SUCCESS, MEAN_SCORE = "mean success", "mean score"
"""What the means over tasks are called, everywhere."""

SCORED = f"{MEAN_SCORE}: of the normalised scores, in which a success counts 100%"
"""What the mean score is, in a caption."""

BROKEN = "broken"
"""Stands for the figure of a task of which every episode broke."""

MANY_TASKS = 10
"""Tasks from which on the worst one is named."""

CAUSES = 3
"""Causes of broken episodes that a caption shows."""


def results_table(results: Sequence[EvaluationResult]) -> TaskTable:
    """One column per policy; one row per task measured by success, two per task measured by its return.

    Success at any decision stands with its Wilson interval, normalised score and return with seeded bootstrap
    intervals; a return without a range has no score. Where some task is measured by its return, a column says
    what a row measures. The last rows, bold, are the means over tasks that `mtrl.evaluation.results` defines.
    Of a single episode there is no bootstrap interval: "2.1 [-]". The caption says what the means leave out,
    and which episodes broke.

    Raises:
        ConfigError: no results, or results that `require_comparable` refuses.
    """
    first = _comparable(results)
    level = f"{100 * first.confidence:g}%"
    mixed = not first.by_success
    if mixed:
        title = f"Results ({starts_of(first)})"
        caption = f"in brackets: {level} intervals, Wilson for success, bootstrap over episodes for the rest"
        caption += f"\n{SCORED}" * bool(first.normalised_tasks) + _single(first)
    else:
        title, caption = f"Success, % ({starts_of(first)})", f"in brackets: Wilson interval, {level}"
    if first.policy.kind == HELD_OUT:
        title = f"{title.removesuffix(')')}, held out)"
        caption += "\nheld out: the policies were trained on none of these tasks"
    caption += "".join(
        f"\n{line}" for line in [*coverage_lines(results), *worst_lines(results), *broken_lines(results)]
    )
    table = empty_table(title, caption)
    every = all_task_names(results)
    names = TaskNames(every)
    add_names(table, names)
    if mixed:
        add_measures(table)
    for result in results:
        add_figures(table, result.policy.shown)
    rows = [row for name in every for row in _task_rows(name, results)]
    means = _mean_rows(results)
    for index, row in enumerate([*rows, *means]):
        first_cell = names.cell(row[0]) if row[0] in every else Text(row[0])
        cells = map(Text, [*([row[1]] if mixed else []), *row[2:]])
        table.add_row(
            first_cell,
            *cells,
            end_section=index == len(rows) - 1,
            style="bold" if index >= len(rows) else None,
        )
    return table


def _task_rows(name: str, results: Sequence[EvaluationResult]) -> list[list[str]]:
    """Name, measure and a cell for each policy; the name stands in the first row alone."""
    tasks = [result.task(name) for result in results]
    known = next(task for task in tasks if task is not None)
    if known.by_success:
        return [[name, "success, %", *(format_rate(task.success_any) if task else BROKEN for task in tasks)]]
    measures: list[tuple[str, Callable[[EvaluationResult], Means | None], Callable[[Estimate], str]]] = [
        ("return", return_means, format_plain)
    ]
    if known.is_normalised:
        measures.insert(0, ("score, %", score_means, format_percent))
    rows: list[list[str]] = []
    for measured, means_of, shown in measures:
        found = [means_of(result) for result in results]
        cells = [shown(one.tasks[name]) if one and name in one.tasks else BROKEN for one in found]
        rows.append(["" if rows else name, measured, *cells])
    return rows


def _mean_rows(results: Sequence[EvaluationResult]) -> list[list[str]]:
    rows: list[list[str]] = []
    rates = [result.mean.success_any for result in results]
    if any(rates):
        rows.append([MEAN_SUCCESS, "success, %", *(format_rate(rate) if rate else BROKEN for rate in rates)])
    scores = [score_means(result) for result in results]
    if not results[0].by_success and any(scores):
        rows.append(
            [MEAN_SCORE, "score, %", *(format_percent(one.mean) if one else BROKEN for one in scores)]
        )
    return rows


def all_task_names(results: Sequence[EvaluationResult]) -> tuple[str, ...]:
    """The tasks that any of the results measured, in the order of the first that has most of them."""
    fullest = max(results, key=lambda result: len(result.tasks))
    return tuple(dict.fromkeys([*fullest.task_names, *(n for result in results for n in result.task_names)]))


def worst_lines(results: Sequence[EvaluationResult]) -> list[str]:
    """The task that each policy solves least often, in words, where there are too many to see it."""
    return [
        f"least of {result.policy.label}: {worst.name}, {format_rate(worst.success_any)}"
        for result in results
        if len(result.success_tasks) >= MANY_TASKS
        for worst in [min(result.success_tasks, key=lambda task: task.success_any.rate)]
    ]


def coverage_lines(results: Sequence[EvaluationResult]) -> list[str]:
    """Which tasks the means leave out, in words; nothing where each holds all tasks."""
    first = results[0]
    every = first.every_task
    lines = []
    solved = [task.name for task in every if task.score.kind == "success"]
    if solved and len(solved) < len(every):
        lines.append(
            f"{MEAN_SUCCESS}: of the {len(solved)} of {len(every)} tasks that are measured by success"
        )
    raw = [task.name for task in every if not task.score.is_normalised]
    if raw and len(raw) < len(every):
        lines.append(f"{MEAN_SCORE}: without {', '.join(raw)}: a return without a range")
    for result in results:
        if result.unmeasured:
            names = ", ".join(task.name for task in result.unmeasured)
            lines.append(f"means of {result.policy.shown}: without {names}: every episode broke")
    return lines


def broken_lines(results: Sequence[EvaluationResult]) -> list[str]:
    """Which episodes broke and of what, in a few lines; nothing where none did."""
    lines = []
    for result in results:
        if result.broken:
            total = len(result.every_episode)
            lines.append(
                f"{result.policy.shown}: {len(result.broken)} of {total} episodes broke and count nowhere: "
                f"{left_out(result.broken)}"
            )
            causes = list(dict.fromkeys(episode.cause for episode in result.broken))
            lines += [f"  {cause}" for cause in causes[:CAUSES]]
            lines += [f"  and {len(causes) - CAUSES} more causes, in the result file"] * (
                len(causes) > CAUSES
            )
    return lines


def print_results(results: Sequence[EvaluationResult], console: Console | None = None) -> None:
    """Prints `results_table` on `console`, by default the standard output."""
    (console or Console(emoji=False)).print(results_table(results))


@dataclass(frozen=True)
class Means:
    """The mean over tasks, and task -> mean of its episodes."""

    mean: Estimate
    tasks: Mapping[str, Estimate]


def score_means(result: EvaluationResult) -> Means | None:
    """Mean normalised scores with bootstrap intervals over episodes; tasks without a range are left out.

    None when no task has a normalised score.
    """
    names = tuple(task.name for task in result.normalised_tasks)
    return _means(result, names, [result.normalised_scores(name) for name in names]) if names else None


def return_means(result: EvaluationResult) -> Means:
    """Mean undiscounted returns with bootstrap intervals over episodes."""
    names = result.task_names
    return _means(result, names, [[e.episode_return for e in result.task_episodes(name)] for name in names])


def _means(result: EvaluationResult, names: tuple[str, ...], samples: Sequence[Sequence[float]]) -> Means:
    source = np.random.default_rng(SCORE_SEED)
    found = bootstrap_means(samples, source, confidence=result.confidence)
    return Means(found.mean, dict(zip(names, found.tasks, strict=True)))


def _single(result: EvaluationResult) -> str:
    few = any(task.episodes < 2 for task in result.tasks)
    return "\n[-]: one episode has no bootstrap interval, nor has a mean that it is part of" if few else ""


def _comparable(results: Sequence[EvaluationResult]) -> EvaluationResult:
    if not results:
        raise ConfigError("a table needs at least one evaluation; run: mtrl evaluate")
    for other in results[1:]:
        require_comparable(results[0], other)
    return results[0]


def starts_of(result: EvaluationResult) -> str:
    """The starts in words, such as "test starts, 50 episodes a task"."""
    names = [episode.task for episode in result.every_episode]
    counts = sorted(set(Counter(names).values()))
    episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    return f"{result.split.name.lower()} starts, {episodes} episodes a task"


def empty_table(title: str, caption: str) -> TaskTable:
    """A table with title and caption, without columns yet."""
    return TaskTable(
        title=Text(f"{title}\n"),
        caption=Text(f"\n{caption}"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )


def add_names(table: TaskTable, names: TaskNames) -> None:
    """The first column, of cells of `names`."""
    table.add_column("task", overflow="fold")
    table.short = max(names.narrowest, len(MEAN_SUCCESS))


def add_measures(table: TaskTable) -> None:
    """A column that says what a row measures."""
    table.add_column("measured", no_wrap=True, min_width=len("success, %"))
    table.heads = 2


def add_figures(table: TaskTable, label: str) -> None:
    """A policy's column of figures; where no terminal is wide enough its cells fold: none is cut short."""
    table.add_column(Text(label), justify="right", overflow="fold")
