"""`mtrl runs`: the runs in a folder, how far they came, what they reached and how they go on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrl.errors import ConfigError, MtrlError
from mtrl.evaluation import OWN, PolicyReference, read_saved
from mtrl.ownership import owner_of
from mtrl.pipeline import RESUME, log
from mtrl.reading import reading
from mtrl.run_directory import LOCK
from mtrl.training import Checkpoints, RunDirectory

from ..arguments import add_json, emit

EXAMPLES = (
    "mtrl runs                     those in runs/",
    "mtrl runs elsewhere --json    for another program",
    "mtrl runs | grep stopped",
)

HEADLINES = ("student_score", "teacher_score", "student_success", "teacher_success")
"""Figures of `summary.json` that stand for a run; the first that is there is shown."""

HERE = Path("runs")
"""Where runs are unless output= says otherwise; no error where nothing has run yet."""

FIRST = "mtrl train agent=sac tasks=[gym/CartPole-v1] steps=6000 online.warmup=500 name=first"

SHOWN_TASKS = 3
"""Tasks that the line of a run names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="folder of runs (runs)")
    add_json(parser, "the runs")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each run, and the command that goes on where it has not ended; writes nothing."""
    folder: Path = arguments.folder
    if not folder.is_dir() and folder != HERE:
        raise ConfigError(
            f"{folder} is no folder; name the folder that holds runs, as given by output=FOLDER"
        )
    console, records = Console(emoji=False), []
    for config in sorted(folder.glob("**/config.yaml")):
        try:
            records.append(describe(RunDirectory.open(config.parent)))
        except MtrlError as error:
            log(Console(emoji=False, stderr=True), f"{config.parent}: {error}")
    for record in records:
        agent, names = record["agent"], record["tasks"]
        figure = "" if record["headline"] is None else f"   {record['headline']} {record['value']:.3f}"
        figure, more = figure.replace(OWN, agent.replace(" ", "_")), len(names) - SHOWN_TASKS
        tasks = ", ".join(names[:SHOWN_TASKS]) + f", {more} more" * (more > 0)
        log(console, f"{record['state']:<9} {record['run']}   step {record['step']:,}{figure}")
        log(console, f"    {agent}, seed {record['seed']}, on {tasks}")
        if record["owner"]:
            log(console, f"    owned by {record['owner']}")
        if record["state"] == "stopped":
            log(console, f"    go on with: {record['resume'] or 'the command that began it, --resume auto'}")
    if not records:
        log(console, f"{folder} holds no runs yet; begin one with: {FIRST}")
    emit(arguments, records)
    return 0


def describe(run: RunDirectory) -> dict[str, Any]:
    """A run's folder, state ("active", "finished" or "stopped"), agent, tasks, seed, owner,
    newest step, headline figure and the command that goes on with it, None where its version did not record
    one.

    A run that another process owns is active.
    """
    summary, place = read_saved(run.path / "summary.json"), run.path.resolve()
    command = read_saved(run.path / RESUME)
    state = "finished" if command.get("finished", bool(summary)) else "stopped"
    owner = owner_of(place.parent / f".{place.name}{LOCK}")
    state = "active" if owner else state
    config = run.read_config()
    with reading(run.config_file, "the configuration of a run"):
        names, seed = [str(name) for name in config["tasks"]["names"]], int(config["seed"])
    headline = next((name for name in HEADLINES if name in summary), None)
    steps = Checkpoints(run.training("teacher")).steps()
    return {
        "run": str(run.path),
        "state": state,
        "agent": PolicyReference(OWN, OWN, "", 0).by_agent(config.get("agent")).shown,
        "tasks": names,
        "seed": seed,
        "owner": owner,
        "step": steps[-1] if steps else 0,
        "headline": headline,
        "value": None if headline is None else summary[headline],
        "resume": command.get("command"),
    }
