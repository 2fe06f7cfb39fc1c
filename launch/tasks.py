"""`mtrl tasks`: what can be trained on."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from mtrl import registry
from mtrl.errors import UnknownNameError
from mtrl.rollout import backends_of
from mtrl.tasks import NamedSet, Option, Task

from .arguments import add_json, emit

EXAMPLES = (
    "mtrl tasks                      every task and set",
    "mtrl tasks 'metaworld/drawer-*' tasks that match a pattern",
    "mtrl tasks mt10 --json          the tasks of a set, for a program",
)

COLUMNS = ("task", "observation", "action", "horizon", "rate", "repeat", "score", "backends", "expert")
"""Keys of a task's record that the table shows."""

PIPED_WIDTH = 160
"""Columns where the output is no terminal, so that a line stays a line."""

NARROW = 100
"""Below so many columns a task takes two lines instead of a row."""

MANY = 100
"""More tasks than that on a terminal, and each suite shows only its first ones."""
FIRST = 10

Record = dict[str, str | int | float | bool | list[str] | dict[str, Option]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pattern and output format."""
    parser.add_argument("pattern", nargs="?", default="", help="part of a name, a glob, or a task set")
    add_json(parser, "every task")


def run(arguments: argparse.Namespace) -> int:
    """Prints the matching tasks; imports no simulator."""
    tasks = matching(arguments.pattern)
    emit(arguments, [record_of(task) for task in tasks])
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(emoji=False, width=max(PIPED_WIDTH, console.width))
    show_tasks(tasks, console)
    sets = registry.named_sets()
    if not arguments.pattern:
        show_sets(sets, console)
    elif arguments.pattern in sets:
        show_sets({arguments.pattern: sets[arguments.pattern]}, console)
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
        known = [*sets, *names]
        raise UnknownNameError("task or task set", pattern, known, overview=registry.task_overview())
    return [registry.task(name) for name in chosen]


def record_of(task: Task) -> Record:
    """Everything that is said about a task; the JSON form."""
    suite = registry.suite(task.suite)
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
    return {
        "task": task.name,
        "observation": " + ".join(observed),
        "action": acted,
        "horizon": task.horizon_decisions,
        "rate": f"{task.rate_hz:g} Hz",
        "repeat": task.action_repeat,
        "score": score_of(task),
        "backends": list(backends_of(task)),
        "expert": suite.has_experts,
        "starts": suite.supports_starts,
        "rate_hz": task.rate_hz,
        "reward_version": task.reward_version,
        "options": dict(task.options),
        "protocol_hash": task.protocol_hash,
    }


def score_of(task: Task) -> str:
    """How an episode is scored; a return without a published range counts as it is."""
    if task.score.kind == "success":
        return "success"
    if task.score.low is None:
        return "return, raw"
    return f"return {task.score.low:g} to {task.score.high:g}"


def show_tasks(tasks: Sequence[Task], console: Console) -> None:
    """One table per suite, whose columns fit its own tasks."""
    short = console.is_terminal and len(tasks) > MANY
    for suite, group in groupby(tasks, key=lambda task: task.suite):
        members = list(group)
        shown = members[:FIRST] if short else members
        records = [record_of(task) for task in shown]
        if console.width < NARROW:
            for record in records:
                console.print(record["task"], style="bold", markup=False, highlight=False)
                console.print(Padding(_sentence(record), (0, 0, 0, 2)), highlight=False)
        else:
            console.print(_table(records))
            console.print()
        if len(shown) < len(members):
            console.print(
                f"  ... {len(members) - len(shown)} more: mtrl tasks {suite}/", style="dim", highlight=False
            )


def show_sets(sets: Mapping[str, NamedSet], console: Console) -> None:
    """Sets with their sizes, suites and settings."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("task set", "tasks", "suites", "settings"):
        table.add_column(column, justify="right" if column == "tasks" else "left", overflow="fold")
    for name, members in sets.items():
        suites = dict.fromkeys(task.partition("/")[0] for task in members.names)
        settings = [
            f"{suite}: " + ", ".join(f"{key}={value}" for key, value in options.items())
            for suite, options in members.options.items()
        ]
        table.add_row(name, str(len(members.names)), ", ".join(suites), "; ".join(settings))
    console.print(table)


def _table(records: Sequence[Record]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for column in COLUMNS:
        right = column in ("horizon", "rate", "repeat")
        # A name that was broken could not be copied; backends are many short words.
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "backends")
    for record in records:
        table.add_row(*(_cell(record[column]) for column in COLUMNS))
    return table


def _sentence(record: Record) -> str:
    """The row in words, for a narrow terminal."""
    expert = "expert" if record["expert"] else "no expert"
    return (
        f"{record['observation']}, {record['action']}; horizon {record['horizon']}, {record['rate']}, "
        f"repeat {record['repeat']}; {record['score']}; {_cell(record['backends'])}; {expert}"
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return str(value)
