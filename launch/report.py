"""`mtrl report`: a run, or the log of a flight, as one self-contained page."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from mtrl.errors import ConfigError
from mtrl.evaluation import holds_results
from mtrl.pipeline import log
from mtrl.report import write_report
from mtrl.report.flight import write_flight_report
from mtrl.training import RunDirectory

from .arguments import add_json, emit

EXAMPLES = (
    "mtrl report runs/quickstart              writes runs/quickstart/report.html",
    "mtrl report runs/diffusion-mt10-seed1    a run without evaluation: lists what is missing",
    "for run in runs/*; do mtrl report $run; done",
    "mtrl report deployments/metaworld-reach-v3.mcap   a flight: writes metaworld-reach-v3.html beside it",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run or the log."""
    parser.add_argument(
        "run", type=Path, metavar="RUN|LOG", help="folder of a run, or log of a flight (.mcap)"
    )
    add_json(parser, "the page's place")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and prints its place."""
    if arguments.run.suffix == ".mcap":
        page = write_flight_report(arguments.run)
        log(Console(emoji=False), f"report: {page}")
        emit(arguments, {"report": page})
        return 0
    if holds_results(arguments.run):
        command = shlex.join(["mtrl", "compare", str(arguments.run)])
        raise ConfigError(
            f"{arguments.run} is a folder of files, and a report is about a run; "
            f"results of mtrl evaluate --out are compared by: {command}"
        )
    page = write_report(RunDirectory.open(arguments.run).path)
    log(Console(emoji=False), f"report: {page}")
    emit(arguments, {"report": page})
    return 0
