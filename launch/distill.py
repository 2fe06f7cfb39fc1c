"""`mtrl distill`: from a run's teacher to a one-forward student."""

from __future__ import annotations

import argparse

from rich.console import Console

from mtrl.errors import ExistsError
from mtrl.integrity import remove_directory

from .learn import distill_stage
from .runs import add_run_argument, reopen
from .session import Interrupted, resume_command

EXAMPLES = (
    "mtrl distill runs/diffusion-mt10                    with the run's own settings",
    "mtrl distill runs/diffusion-mt10 updates=5000       longer",
    "mtrl distill runs/quickstart distillation.network.width=128 --overwrite",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, settings, and what to do with an older student."""
    add_run_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the run's student")
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="never", help="auto: go on with a stopped distillation"
    )


def run(arguments: argparse.Namespace) -> int:
    """Distils and keeps the student in the run."""
    console = Console()
    with reopen(arguments.run, arguments.overrides, "distill", console) as session:
        places = [session.policy_place("student"), session.run.path / "student"]
        if session.policy_place("student").exists() and not arguments.overwrite:
            raise ExistsError(f"{session.run.path} has a student; pass --overwrite to replace it")
        if arguments.resume != "auto":
            for place in places:
                if place.exists():
                    remove_directory(place)
        try:
            distill_stage(session)
        except Interrupted as stopped:
            console.print(f"{stopped}; go on with:\n  {resume_command()}", highlight=False)
            return 130
    return 0
