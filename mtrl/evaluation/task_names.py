"""Names of tasks in a table's first column, which a narrow terminal shortens and never cuts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

NAME_WIDTHS = (20, 28)
"""Columns that names of tasks keep on a narrow terminal: at least, and at most."""


class TaskTable(Table):
    """A table whose first column, of names of tasks, takes what the words of the other columns leave it.

    A table that is too wide is cut at the edge of the terminal, and a number cut short is another one.
    """

    short = 0
    """Width of the names when they are short."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, room = self.columns[0], options.max_width
        unlimited = options.update(width=10_000)
        first.width = None
        if Measurement.get(console, unlimited, self).maximum > room:
            first.width = 1
            left = room - Measurement.get(console, unlimited, self).minimum + 1
            least, most = NAME_WIDTHS
            first.width = min(self.short, max(least, min(most, left)))
        yield from super().__rich_console__(console, options)


class TaskNames:
    """Where the names do not fit, all of them leave out their suite: `reach-v3` for `metaworld/reach-v3`.

    They stay whole where two tasks would be called alike. A column too narrow even for that folds them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        full = tuple(names)
        short = [name.partition("/")[2] or name for name in full]
        self._short = dict(zip(full, short if len(set(short)) == len(set(full)) else full, strict=True))
        self.widest = max((len(name) for name in full), default=0)
        self.narrowest = max((len(name) for name in self._short.values()), default=0)

    def cell(self, name: str) -> _Name:
        """The cell of a task."""
        return _Name(self, name)

    def shown(self, name: str, width: int) -> str:
        """The name of a task in a column of `width` characters."""
        return name if width >= self.widest else self._short[name]


@dataclass(frozen=True)
class _Name:
    names: TaskNames
    name: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.names.narrowest, self.names.widest)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Text, not str: a name in square brackets must not be read as markup
        yield Text(self.names.shown(self.name, options.max_width), overflow="fold")
