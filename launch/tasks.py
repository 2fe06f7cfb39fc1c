"""`mtrl tasks`: what can be trained on."""

from __future__ import annotations

import argparse
import fnmatch
import json

from rich.console import Console
from rich.table import Table

from mtrl import registry
from mtrl.errors import UnknownNameError
from mtrl.tasks import Task

EXAMPLES = (
    "mtrl tasks                      every task and set",
    "mtrl tasks 'metaworld/drawer-*' tasks that match a pattern",
    "mtrl tasks mt10 --json          the tasks of a set, for a program",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pattern and output format."""
    parser.add_argument("pattern", nargs="?", default="", help="part of a name, a glob, or a task set")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Prints the matching tasks; imports no simulator."""
    tasks = matching(arguments.pattern)
    if arguments.json:
        print(json.dumps([_record(task) for task in tasks], indent=2))
        return 0
    table = Table(title=None, header_style="bold")
    for column in ("task", "observation", "action", "horizon", "rate", "repeat", "score"):
        table.add_column(column, no_wrap=True)
    for task in tasks:
        record = _record(task)
        table.add_row(*(str(record[key]) for key in record))
    console = Console()
    console.print(table)
    if not arguments.pattern:
        for name, members in registry.named_sets().items():
            console.print(f"[bold]{name}[/bold]: {len(members.names)} tasks", highlight=False)
    return 0


def matching(pattern: str) -> list[Task]:
    """Tasks of a set, or whose name holds or globs the pattern; raises UnknownNameError for none."""
    names = registry.all_task_names()
    sets = registry.named_sets()
    if pattern in sets:
        return list(registry.task_set(pattern))
    if any(sign in pattern for sign in "*?["):
        chosen = fnmatch.filter(names, pattern)
    else:
        chosen = [name for name in names if pattern.lower() in name.lower()]
    if not chosen:
        raise UnknownNameError("task or task set", pattern, [*sets, *names])
    return [registry.task(name) for name in chosen]


def _record(task: Task) -> dict[str, str | int | float]:
    observed = []
    if task.observation.state is not None:
        observed.append(f"state {task.observation.state}")
    if task.observation.pixels is not None:
        observed.append("pixels " + "x".join(map(str, task.observation.pixels)))
    acted = (
        f"discrete {task.action.discrete}"
        if task.action.is_discrete
        else f"continuous {task.action.continuous}"
    )
    score = "success" if task.score.kind == "success" else f"return {task.score.low:g} to {task.score.high:g}"
    return {
        "task": task.name,
        "observation": " + ".join(observed),
        "action": acted,
        "horizon": task.horizon_decisions,
        "rate": f"{task.rate_hz:g} Hz",
        "repeat": task.action_repeat,
        "score": score,
    }
