"""Opening a finished run with its own configuration, some keys changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.pipeline import Config, Session, session_in, task_set_of
from mtrl.reading import reading
from mtrl.training import RunDirectory, own_folder

from .compose import compose


def recorded_config(run: RunDirectory, overrides: Sequence[str], command: str) -> Config:
    """A finished run's configuration, some keys changed.

    Raises IntegrityError for a file that is no configuration, UntrustedCodeError where its tasks import a
    module that the user has not named.
    """
    base = run.read_config()
    with reading(run.config_file, "the configuration of a run"):
        recorded = compose((), command=command, base=base)
        names = registry.expanded(recorded.tasks.names)
    registry.require_imports(names, run.config_file)
    return compose(overrides, command=command, base=base)


@contextlib.contextmanager
def reopen(
    path: Path, overrides: Sequence[str], command: str, console: Console, *, written: Sequence[Path] = ()
) -> Iterator[Session]:
    """A session on an existing run; its recorded configuration stays as it is.

    The run is locked until the end, or only the folders `written` where the command writes nowhere else.
    """
    run = RunDirectory.open(path)
    with contextlib.ExitStack() as locks:
        for folder in written or (path,):
            locks.enter_context(own_folder(folder))
        config = recorded_config(run, overrides, command)
        yield locks.enter_context(session_in(run, config, task_set_of(config), console))
