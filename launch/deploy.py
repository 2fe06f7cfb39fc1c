"""`mtrl deploy`: an artefact on a robot, in real time."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtrl import registry
from mtrl.deployment import REPORTS, DeploymentReport, EpisodeReport, deploy, read_manifest
from mtrl.errors import ConfigError
from mtrl.evaluation.table import add_names, empty_table
from mtrl.evaluation.task_names import TaskNames
from mtrl.pipeline import REALTIME_STARTS, artefact_of, log
from mtrl.tasks import Split, start_id

from .arguments import add_json, add_overrides, emit
from .compose import compose

EXAMPLES = (
    "mtrl deploy runs/quickstart robot=sim                           one episode of every task",
    "mtrl deploy runs/quickstart/artefact --task metaworld/reach-v3  one task",
    "mtrl deploy runs/quickstart --episodes 20 --json flights.json   20 episodes of every task",
    "mtrl deploy runs/quickstart/artefact robot.stale_limit_ms=25 --out flights",
    "mtrl deploy ARTEFACT robot=ros2 robot.file=robot.yaml --shadow  watch a robot that somebody else moves",
    "mtrl deploy ARTEFACT robot=ros2 robot.file=robot.yaml --arm     move it",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The artefact, the robot and the episodes."""
    parser.add_argument(
        "artefact", type=Path, metavar="ARTEFACT|RUN", help="folder of an artefact, or its run"
    )
    add_overrides(parser, "settings, such as robot=sim", config_dir=True)
    parser.add_argument("--task", action="append", help="task to run; may be given several times (all)")
    parser.add_argument("--episodes", type=int, default=1, metavar="N", help="episodes of each task (1)")
    parser.add_argument(
        "--first-start", type=int, default=REALTIME_STARTS, help="index of the first test start"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for deployments/ (here)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--shadow", dest="mode", action="store_const", const="shadow", help="read the robot, publish nothing"
    )
    modes.add_argument(
        "--dry-run", dest="mode", action="store_const", const="dry-run", help="all but the last step"
    )
    modes.add_argument(
        "--arm", dest="mode", action="store_const", const="armed", help="move a robot that is no simulation"
    )
    add_json(parser, "every episode")


def run(arguments: argparse.Namespace) -> int:
    """Runs every episode; 0 when all ran, successful or not, 1 after a stop or a command time-out."""
    config = compose(arguments.overrides, command="deploy", config_dir=arguments.config_dir)
    artefact = artefact_of(arguments.artefact)
    manifest = read_manifest(artefact)
    registry.allow_imports(map(registry.module_of, arguments.task or ()))
    if arguments.episodes < 1:
        raise ConfigError(f"expected --episodes of at least 1, got {arguments.episodes}")
    tasks = arguments.task or [entry.name for entry in manifest.tasks]
    names = [name for name in tasks for _ in range(arguments.episodes)]
    starts = [start_id(Split.TEST, arguments.first_start + k) for k in range(len(names))]
    console = Console(emoji=False)

    def show(episode: EpisodeReport) -> None:
        log(console, f"  {episode.task}: {episode.outcome}")

    try:
        report = deploy(
            artefact,
            config.robot,
            names,
            starts,
            config.seed,
            arguments.out,
            mode=arguments.mode or "",
            overwrite=arguments.overwrite,
            on_episode=show,
        )
        print_deployment(report, console)
        emit(
            arguments,
            {
                "artefact": report.artefact,
                "robot": config.robot.name,
                "folder": arguments.out / REPORTS,
                "successes": report.successes,
                "deadline_miss_fraction": report.deadline_miss_fraction,
                "episodes": [episode.as_json() for episode in report.episodes],
            },
        )
    finally:
        if (folder := arguments.out / REPORTS).exists():
            log(console, f"results and flight logs are in {folder}")
    return int(any(episode.disturbed for episode in report.episodes))


def print_deployment(report: DeploymentReport, console: Console) -> None:
    """One row per episode, then the totals and what a reader should know."""
    table = empty_table(
        "Episodes in real time",
        "missed: deadlines, of so many ticks; p50, p99: of one inference, in us\n"
        "command: from observation to command, p99, in us",
    )
    names = TaskNames(dict.fromkeys(episode.task for episode in report.episodes))
    add_names(table, names)
    for column in ("outcome", "missed", "held", "guard", "p50", "p99", "command"):
        left = column in ("outcome", "guard")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for episode in report.episodes:
        cells = (
            episode.outcome,
            f"{episode.deadline_misses}/{episode.ticks}",
            str(episode.held_ticks),
            episode.final_state,
            f"{episode.inference.p50:.0f}",
            f"{episode.inference.p99:.0f}",
            f"{episode.observation_to_command.p99:.0f}",
        )
        table.add_row(names.cell(episode.task), *map(Text, cells))
    console.print(table)
    judged = [episode for episode in report.episodes if episode.score == "success"]
    succeeded = f"{sum(episode.success for episode in judged)} of {len(judged)} episodes succeeded; "
    console.print(
        f"{succeeded if judged else ''}{100 * report.deadline_miss_fraction:.2f}% of deadlines missed",
        highlight=False,
    )
    for warning in sorted({warning for episode in report.episodes for warning in episode.warnings}):
        console.print("[yellow]note:[/yellow] ", end="")
        log(console, warning)
