"""Commands that work on a finished run: opening it with its own configuration, some keys changed."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mtrl.pipeline.session import Session, session_in, task_set_of
from mtrl.training import RunDirectory

from .compose import compose


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """The run, and changes to its settings."""
    parser.add_argument("run", type=Path, help="folder of a run, such as runs/quickstart")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings changed for this command")


@contextlib.contextmanager
def reopen(path: Path, overrides: Sequence[str], command: str, console: Console) -> Iterator[Session]:
    """A session on an existing run; its recorded configuration stays as it is."""
    run = RunDirectory.open(path)
    config = compose(overrides, command=command, base=run.read_config())
    with session_in(run, config, task_set_of(config), console) as session:
        yield session
