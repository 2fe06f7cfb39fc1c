"""Results as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtrl.errors import ConfigError

from .comparison import require_comparable
from .formats import format_percent, format_plain, format_rate
from .results import EvaluationResult
from .statistics import Estimate, bootstrap_means

SCORE_SEED = 0
"""Seed of the resampling behind every interval of a score, so that a table repeats itself."""

NARROWEST_NAME = 14
"""Columns that the names of tasks keep on a narrow terminal."""


def results_table(results: Sequence[EvaluationResult]) -> Table:
    """One column per policy; one row per task measured by success, two per task measured by its return.

    Success at any decision stands with its Wilson interval, normalised score and return with seeded bootstrap
    intervals; a return without a range has no normalised score. Where some task is measured by its return, a
    column says what a row measures. The last row, bold, is the mean over tasks of the normalised scores, in
    which a success counts 100%. Of a single episode there is no bootstrap interval: "2.1 [-]".

    Raises:
        ConfigError: no results, or results that `require_comparable` refuses.
    """
    first = _comparable(results)
    level = f"{100 * first.confidence:g}%"
    mixed = any(task.score.kind != "success" for task in first.tasks)
    if mixed:
        title = f"Results ({starts_of(first)})"
        caption = (
            f"in brackets: {level} intervals, Wilson for success, bootstrap over episodes for the rest\n"
        )
        caption += "mean: of the normalised scores, in which a success counts 100%"
        caption += _left_out(first) + _single(first)
    else:
        title, caption = f"Success, % ({starts_of(first)})", f"in brackets: Wilson interval, {level}"
    table = empty_table(title, caption)
    add_names(table)
    if mixed:
        add_measures(table)
    for result in results:
        add_figures(table, result.policy.label)
    scores = [found for result in results if mixed and (found := score_means(result)) is not None]
    returns = [return_means(result) for result in results if mixed]
    for position, name in enumerate(first.task_names):
        tasks = [task for result in results if (task := result.task(name)) is not None]
        rows: list[tuple[str, list[str]]] = []
        if tasks[0].score.kind == "success":
            rows.append(("success, %", [format_rate(task.success_any) for task in tasks]))
        else:
            if tasks[0].is_normalised:
                rows.append(("score, %", [format_percent(means.tasks[name]) for means in scores]))
            rows.append(("return", [format_plain(means.tasks[name]) for means in returns]))
        for index, (measured, cells) in enumerate(rows):
            last = position == len(first.tasks) - 1 and index == len(rows) - 1
            heads = ["" if index else name, *([measured] if mixed else [])]
            # Text, not str: a name in square brackets must not be read as markup
            table.add_row(*map(Text, [*heads, *cells]), end_section=last)
    if not mixed:
        cells = [format_rate(result.mean.success_any) for result in results]
        table.add_row(*map(Text, ["mean", *cells]), style="bold")
    elif first.normalised_tasks:
        cells = [format_percent(means.mean) for means in scores]
        table.add_row(*map(Text, ["mean", "score, %", *cells]), style="bold")
    return table


def print_results(results: Sequence[EvaluationResult], console: Console | None = None) -> None:
    """Prints `results_table` on `console`, by default the standard output."""
    (console or Console()).print(results_table(results))


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


def _left_out(result: EvaluationResult) -> str:
    names = [task.name for task in result.tasks if not task.is_normalised]
    return f"\nwithout {', '.join(names)}: a return without a range" if names else ""


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
    counts = sorted({task.episodes for task in result.tasks})
    episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    return f"{result.split.name.lower()} starts, {episodes} episodes a task"


def empty_table(title: str, caption: str) -> Table:
    """A table with title and caption, without columns yet."""
    return Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )


def add_names(table: Table) -> None:
    """The first column; a narrow terminal folds names, down to a width at which they can be read."""
    table.add_column("task", overflow="fold", min_width=NARROWEST_NAME)


def add_measures(table: Table) -> None:
    """A column that says what a row measures."""
    table.add_column("measured", no_wrap=True, min_width=len("success, %"))


def add_figures(table: Table, label: str) -> None:
    """A policy's column; a narrow terminal breaks its cells, since a number cut short would be another."""
    table.add_column(Text(label), justify="right", overflow="fold")
