"""`mtrl export`: a run's student, or its policy where that is one forward pass, as an artefact."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.atomic import remove_directory
from mtrl.errors import ExistsError
from mtrl.evaluation import read_saved
from mtrl.integrity import verify_manifest
from mtrl.pipeline.export_stage import entries_for_robot, export_stage

from .arguments import add_json, add_run, emit
from .reopen import reopen

EXAMPLES = (
    "mtrl export runs/quickstart               writes runs/quickstart/artefact",
    "mtrl export runs/quickstart --overwrite   after distilling again",
    "mtrl export runs/sac-reach seed=3         the trained policy itself, other golden inputs",
    "mtrl export runs/quickstart robot=arm     with the names, units and limits of that robot's joints",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what to do with an older artefact."""
    add_run(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the run's artefact")
    add_json(parser, "the artefact's place, hash and latency")


def run(arguments: argparse.Namespace) -> int:
    """Exports, checks parity and measures latency."""
    with reopen(arguments.run, arguments.overrides, "export", Console(emoji=False)) as session:
        # what the robot's file shows to be wrong, before the artefact that is there goes
        entries_for_robot(session.config.robot, session.tasks)
        if session.run.artefact.exists():
            if not arguments.overwrite:
                raise ExistsError(f"{session.run.artefact} exists; pass --overwrite to replace it")
            remove_directory(session.run.artefact)
        place = export_stage(session)
        latency = read_saved(session.run.path / "latency.json")
    emit(arguments, {"artefact": place, "identity": verify_manifest(place), "latency_us": latency})
    return 0
