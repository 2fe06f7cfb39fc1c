"""Opening a finished run with its own configuration, some keys changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mtrl.pipeline import Session, session_in, task_set_of
from mtrl.training import RunDirectory, own_folder

from .compose import compose


@contextlib.contextmanager
def reopen(
    path: Path, overrides: Sequence[str], command: str, console: Console, *, written: Sequence[Path] = ()
) -> Iterator[Session]:
    """A session on an existing run; its recorded configuration stays as it is.

    The run is owned until the end, or only the folders `written` where the command writes nowhere else.
    """
    run = RunDirectory.open(path)
    with contextlib.ExitStack() as owned:
        for folder in written or (path,):
            owned.enter_context(own_folder(folder))
        config = compose(overrides, command=command, base=run.read_config())
        yield owned.enter_context(session_in(run, config, task_set_of(config), console))
