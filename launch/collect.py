"""`mtrl collect`: demonstrations from scripted experts, as Minari datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtrl.data import dataset_id_of
from mtrl.distributed import rollouts_for
from mtrl.errors import ExistsError
from mtrl.integrity import remove_directory
from mtrl.training import require_disk

from .compose import compose
from .learn import collect_into
from .session import task_set_of

EXAMPLES = (
    "mtrl collect tasks=mt10 episodes=50                    into datasets/, in this process",
    "mtrl collect tasks=mt10 episodes=50 runtime=ray        the same demonstrations, on Ray",
    "mtrl collect tasks=point/obstacle --out my-data seed=2 one task, elsewhere",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Overrides, the place, and what to do with what is there."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as tasks=mt10")
    parser.add_argument("--out", type=Path, default=Path("datasets"), help="folder of datasets (datasets)")
    parser.add_argument("--config-dir", type=Path, help="folder of your own configuration groups")
    parser.add_argument("--overwrite", action="store_true", help="replace datasets that are there")
    parser.add_argument(
        "--resume", choices=("auto", "never"), default="never", help="auto: collect only what is missing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Collects one dataset per task."""
    config = compose(arguments.overrides, command="collect", config_dir=arguments.config_dir)
    tasks, root = task_set_of(config), arguments.out
    there = [task.name for task in tasks if (root / dataset_id_of(task)).exists()]
    if there and not arguments.overwrite and arguments.resume != "auto":
        raise ExistsError(
            f"{root} already has demonstrations of {', '.join(there)}; pass --overwrite to replace them, "
            "--resume auto to collect only what is missing, or --out for another place"
        )
    require_disk(root, 60_000 * config.demonstrations.episodes * len(tasks))
    if arguments.overwrite:
        for task in tasks:
            if (root / dataset_id_of(task)).exists():
                remove_directory(root / dataset_id_of(task))
    console = Console()
    rollouts = rollouts_for(tasks, config.runtime, lambda fault, _: console.print(str(fault), markup=False))
    try:
        outcome = collect_into(root, tasks, rollouts, config.demonstrations, config.seed)
    finally:
        rollouts.close()
    table = Table(header_style="bold")
    for column in ("dataset", "episodes", "attempts", "expert success"):
        table.add_column(column)
    for task in tasks:
        if task.name in outcome:
            attempts, successes = outcome[task.name]
            kept = str(config.demonstrations.episodes)
            table.add_row(dataset_id_of(task), kept, str(attempts), f"{successes / attempts:.2f}")
    console.print(table)
    console.print(f"datasets are under {root}; Minari reads them with MINARI_DATASETS_PATH={root}")
    return 0
