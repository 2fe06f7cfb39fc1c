"""Results as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtrl.errors import ConfigError

from .comparison import require_comparable
from .results import EvaluationResult, Rate


def success_table(results: Sequence[EvaluationResult]) -> Table:
    """One row per task, one column per policy: success at any decision with its Wilson interval.

    The last row, bold, is the mean over tasks. Percent throughout.

    Raises:
        ConfigError: no results, or results that `require_comparable` refuses.
    """
    if not results:
        raise ConfigError("a table needs at least one evaluation; run: mtrl evaluate")
    first = results[0]
    for other in results[1:]:
        require_comparable(first, other)
    counts = sorted({task.episodes for task in first.tasks})
    episodes = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    table = Table(
        title=Text(f"Success, % ({first.split.name.lower()} starts, {episodes} episodes a task)"),
        caption=Text(f"in brackets: Wilson interval, {100 * first.confidence:g}%"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("task", overflow="fold")
    for result in results:
        table.add_column(Text(result.policy.label), justify="right", no_wrap=True)
    for position, name in enumerate(first.task_names):
        rates = [task.success_any for result in results if (task := result.task(name)) is not None]
        last = position == len(first.task_names) - 1
        # Text, not str: a name in square brackets must not be read as markup
        table.add_row(Text(name), *(Text(format_rate(rate)) for rate in rates), end_section=last)
    means = [Text(format_rate(result.mean.success_any)) for result in results]
    table.add_row(Text("mean"), *means, style="bold")
    return table


def print_results(results: Sequence[EvaluationResult], console: Console | None = None) -> None:
    """Prints `success_table` on `console`, by default the standard output."""
    (console or Console()).print(success_table(results))


def format_rate(rate: Rate) -> str:
    """Percent with the interval in whole percent, "94.0 [84, 98]"."""
    return f"{100 * rate.rate:.1f} [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
