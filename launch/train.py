"""`mtrl train`: from a configuration to a trained, judged and, if asked, deployed policy."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtrl.deployment import DeploymentReport
from mtrl.errors import DivergenceError, ResourceError
from mtrl.evaluation import EvaluationResult, read_json, summarise, write_record
from mtrl.pipeline.config import STAGES, Config
from mtrl.pipeline.console import say
from mtrl.pipeline.evaluation_stages import deploy_stage, evaluate_stage, report_stage
from mtrl.pipeline.export_stage import export_stage
from mtrl.pipeline.recovery import say_what_is_kept
from mtrl.pipeline.requirements import require_resources
from mtrl.pipeline.session import Interrupted, Session, open_session, say_how_to_resume
from mtrl.pipeline.training_stages import clone_stage, collect_stage, distill_stage, train_stage

from .compose import compose

ELAPSED = "elapsed_seconds.json"
"""File of the seconds that all sessions of a run took together, so that resuming does not shorten them."""

EXAMPLES = (
    "mtrl train experiment=quickstart            demonstrations to robot controller in minutes",
    "mtrl train tasks=mt10 runtime=ray seed=2    a diffusion policy on ten tasks, rollouts on Ray",
    "mtrl train experiment=debug --overwrite     something small, from scratch",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Overrides and flags that every composing command shares."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, such as tasks=mt10 seed=2"
    )
    parser.add_argument("--config-dir", type=Path, help="folder of your own configuration groups")
    parser.add_argument("--overwrite", action="store_true", help="remove a run of that name first")
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="never", help="auto: go on with a run of that name"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the configured stages in order."""
    config = compose(arguments.overrides, command="train", config_dir=arguments.config_dir)
    console = Console(stderr=arguments.json)
    require_resources(config)
    with open_session(
        config, overwrite=arguments.overwrite, resume=arguments.resume == "auto", console=console
    ) as session:
        try:
            summary = run_stages(session, config)
        except Interrupted as stopped:
            say_how_to_resume(console, stopped)
            return 130
        except (DivergenceError, ResourceError) as error:
            say_what_is_kept(session, error)
            raise
    if arguments.json:
        json.dump(summary, sys.stdout, indent=2, sort_keys=True)
        print()
    return 0


def run_stages(session: Session, config: Config) -> dict[str, object]:
    """Every configured stage in the fixed order; finished ones are recognised and not repeated."""
    began, record = time.monotonic(), session.run.path / ELAPSED
    known = read_json(record) if record.exists() else 0.0
    before = float(known) if isinstance(known, int | float) else 0.0

    def spent() -> float:
        return before + time.monotonic() - began

    try:
        return _run_stages(session, config, spent)
    finally:
        write_record(record, spent(), overwrite=True)


def _run_stages(session: Session, config: Config, spent: Callable[[], float]) -> dict[str, object]:
    seconds: dict[str, float] = {}
    results: list[EvaluationResult] = []
    deployment: DeploymentReport | None = None
    for stage in (stage for stage in STAGES if stage in config.stages and stage != "report"):
        mark = time.monotonic()
        if stage == "collect":
            collect_stage(session)
        elif stage == "train":
            train_stage(session)
        elif stage == "clone":
            clone_stage(session)
        elif stage == "distill":
            distill_stage(session)
        elif stage == "evaluate":
            results = evaluate_stage(session)
        elif stage == "export":
            export_stage(session)
        elif stage == "deploy":
            deployment = deploy_stage(session)
        seconds[stage] = time.monotonic() - mark
        if session.interrupt.requested:
            raise Interrupted(f"stopped after the stage {stage!r}")
    summary = summarise(session.run.path, results, deployment, spent())
    _show(session.console, summary, seconds)
    if "report" in config.stages:
        report_stage(session)
    else:
        place = session.run.path
        say(session.console, f"all of it is in {place}; a page of it: mtrl report {place}")
    return summary


def _show(console: Console, summary: dict[str, object], seconds: dict[str, float]) -> None:
    table = Table(title="summary", header_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in sorted(summary.items()):
        table.add_row(key, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    spent = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    console.print(f"[dim]{spent}[/dim]", highlight=False)
