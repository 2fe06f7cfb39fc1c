"""`mtrl report`: a run as one self-contained page."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mtrl.evaluation import write_report
from mtrl.training import RunDirectory

EXAMPLES = (
    "mtrl report runs/quickstart              writes runs/quickstart/report.html",
    "mtrl report runs/diffusion-mt10          a run without evaluation: says what is missing",
    "for run in runs/*; do mtrl report $run; done",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run", type=Path, help="folder of a run")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and prints its place."""
    page = write_report(RunDirectory.open(arguments.run).path)
    Console().print(f"report: {page}", highlight=False)
    return 0
