"""Progress of long work: a bar on a terminal, a line now and then in a log, nothing for short work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

QUIET_SECONDS = 2.0
"""Work that is shorter shows nothing."""

LINE_SECONDS = 10.0
"""Without a terminal, the longest time between two lines while work advances."""


class Progress:
    """Progress of some work, shown on standard error. Made by `progress`."""

    def __init__(
        self, description: str, total: int | None, console: Console, clock: Callable[[], float]
    ) -> None:
        """`total` is None when the end is not known."""
        self.done = 0
        self.description = description
        self.total = total
        self._console = console
        self._clock = clock
        self._begun = self._last_line = clock()
        self._tenths = 0
        self._fields = ""
        self._bar: RichProgress | None = None
        self._printed: tuple[int, str] | None = None

    def advance(self, count: int = 1, **fields: float | int | str) -> None:
        """Adds `count` to what is done; `fields` are shown after it, such as `loss=0.2`."""
        self.done += count
        if fields:
            self._fields = "  ".join(f"{name} {_spell(value)}" for name, value in fields.items())
        now = self._clock()
        if now - self._begun < QUIET_SECONDS:
            return
        if self._console.is_terminal:
            self._draw()
        elif self._line_is_due(now):
            self._print_line(now)

    def close(self) -> None:
        """Takes the bar's last state, or prints a last line where there is news."""
        now = self._clock()
        if self._bar is not None:
            self._draw()
            self._bar.stop()
        elif self._printed not in (None, (self.done, self._fields)) and not self._console.is_terminal:
            self._print_line(now)

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self._console,
            )
            self._bar.add_task(self.description, total=self.total, shown="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self.done, shown=self._fields)

    def _line_is_due(self, now: float) -> bool:
        tenths = 10 * self.done // self.total if self.total else 0
        since = now - self._last_line
        due = since >= LINE_SECONDS or (tenths > self._tenths and since >= QUIET_SECONDS)
        if due:
            self._tenths = tenths
        return due

    def _print_line(self, now: float) -> None:
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        elapsed = f"{now - self._begun:.0f} s"
        text = "  ".join(part for part in (f"{self.description}: {count}", elapsed, self._fields) if part)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._last_line = now
        self._printed = (self.done, self._fields)


@contextlib.contextmanager
def progress(
    description: str,
    total: int | None,
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Shows the progress of the block on standard error.

    On a terminal a bar appears after two seconds. Elsewhere a line is printed for every tenth of the
    work or every ten seconds, whichever comes first, but not more than one in two seconds. Blocks may nest.

    Example:
        with progress("collect metaworld/reach-v3", total=50) as bar:
            for episode in episodes:
                bar.advance(success=rate)
    """
    shown = Progress(description, total, console if console is not None else _standard_error(), clock)
    try:
        yield shown
    finally:
        shown.close()


@cache
def _standard_error() -> Console:
    # One console for all: rich nests bars only within one.
    return Console(emoji=False, stderr=True)


def _spell(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
