"""Tables whose first column holds names of tasks: no name and no figure is broken on a narrow terminal."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

NAME_WIDTH = 20
"""Columns that names of tasks keep where even one column of figures beside them is too wide."""


class TaskTable(Table):
    """A table whose first columns say what a row is, and whose other columns hold figures.

    Where it is too wide, the names leave out their suite; where it still is, the figures continue in further
    blocks below, each beside the same first columns. A word is broken only where it fits in no block.
    """

    heads = 1
    """First columns, which every block repeats."""
    short = 0
    """Width of the names when they are short."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        if self._width(console, self.columns) <= room:
            yield from super().__rich_console__(console, options)
            return
        heads = self.columns[: self.heads]
        blocks = list[list[Column]]()
        for unit in self._units():
            if blocks and self._width(console, [*heads, *blocks[-1], *unit], self.short) <= room:
                blocks[-1] += unit
            else:
                blocks.append(unit)
        for index, figures in enumerate(blocks):
            columns = [*heads, *figures]
            left = room - self._width(console, columns, 1) + 1
            block = self._block(columns, min(self.short, max(NAME_WIDTH, left)))
            block.title, block.caption = self.title if index == 0 else Text(" "), None
            yield from Table.__rich_console__(block, console, options)
        # by itself, since a block may be narrow
        yield Text(str(self.caption or ""), "table.caption")

    def _units(self) -> list[list[Column]]:
        """The columns of figures; one without a heading stays with the column before it."""
        units = list[list[Column]]()
        for column in self.columns[self.heads :]:
            if units and not column.header:
                units[-1].append(column)
            else:
                units.append([column])
        return units

    def _block(self, columns: Sequence[Column], names: int | None) -> Table:
        """This table with these columns alone, the first of them `names` wide."""
        block = copy.copy(self)
        block.columns = [replace(column, _index=place) for place, column in enumerate(columns)]
        block.columns[0].width = names
        return block

    def _width(self, console: Console, columns: Sequence[Column], names: int | None = None) -> int:
        unlimited = console.options.update(width=10_000)
        return Table.__rich_measure__(self._block(columns, names), console, unlimited).maximum


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
