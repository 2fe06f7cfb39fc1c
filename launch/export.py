"""`mtrl export`: a run's student, or its policy where that is one forward pass, as an artefact."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.atomic import remove_directory
from mtrl.errors import ExistsError
from mtrl.pipeline.export_stage import export_stage

from .arguments import add_run
from .reopen import reopen

EXAMPLES = (
    "mtrl export runs/quickstart               writes runs/quickstart/artefact",
    "mtrl export runs/quickstart --overwrite   after distilling again",
    "mtrl export runs/sac-reach seed=3         the trained policy itself, other golden inputs",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what to do with an older artefact."""
    add_run(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the run's artefact")


def run(arguments: argparse.Namespace) -> int:
    """Exports, checks parity and measures latency."""
    with reopen(arguments.run, arguments.overrides, "export", Console(emoji=False)) as session:
        if session.run.artefact.exists():
            if not arguments.overwrite:
                raise ExistsError(f"{session.run.artefact} exists; pass --overwrite to replace it")
            remove_directory(session.run.artefact)
        export_stage(session)
    return 0
