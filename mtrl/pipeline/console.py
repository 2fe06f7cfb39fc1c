"""Output of a run: text without markup, and the command that continues a stopped run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from rich.console import Console

from mtrl.evaluation.provenance import program

RESUME = "resume.json"
"""File of a run: the command of its last session with `--resume auto`, and whether every stage is done."""


class Interrupted(Exception):
    """A stage stopped on Ctrl-C after saving what it had."""


def log(console: Console, text: str) -> None:
    """Prints a path, a task's name or a command such as `mtrl train tasks=[point/obstacle]` as it is.

    Nothing in it is markup, and no line is broken: a command that is printed can be copied.
    """
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def log_interruption(console: Console, stopped: Interrupted) -> int:
    """Prints what was stopped and the command that continues it; returns the exit status 130."""
    log_continuation(console, f"{stopped};")
    return 130


def log_continuation(console: Console, text: str) -> None:
    """Prints the text and the command that continues."""
    log(console, f"{text} go on with:\n  {resume_command()}")


def resume_command(changed: Mapping[str, str] | None = None) -> str:
    """This process's command line with `--resume auto` instead of `--overwrite`, and with other values of
    single keys.
    """
    words: list[str] = []
    for word in sys.argv[1:]:
        # Both spellings, "--resume auto" and "--resume=auto", give way to the one at the end.
        follows = bool(words) and words[-1] == "--resume"
        if follows:
            words.pop()
        elif (
            word != "--overwrite"
            and not word.startswith("--resume=")
            and word.partition("=")[0] not in (changed or {})
        ):
            words.append(word)
    added = [f"{key}={value}" for key, value in (changed or {}).items()]
    return shlex.join([*program(), *words, *added, "--resume", "auto"])
