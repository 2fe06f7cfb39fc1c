"""Printing words that may be the user's own."""

from __future__ import annotations

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Prints a path, a task's name or a command such as `mtrl train tasks=[point/obstacle]` as it is.

    Nothing in it is markup, and no line is broken: a command that is printed can be copied.
    """
    console.print(text, highlight=False, markup=False, soft_wrap=True)
