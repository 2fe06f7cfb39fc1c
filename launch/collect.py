"""`mtrl collect`: demonstrations from scripted experts, as Minari datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtrl.data import dataset_id_of, read_provenance
from mtrl.distributed import rollouts_for
from mtrl.errors import ConfigError, ExistsError
from mtrl.pipeline.config import Config
from mtrl.pipeline.console import say
from mtrl.pipeline.demonstrations import STOPPING, collect_into
from mtrl.pipeline.requirements import DEMONSTRATION_BYTES
from mtrl.pipeline.session import Interrupted, say_how_to_resume, task_set_of
from mtrl.rollout import require_experts
from mtrl.structured import plain
from mtrl.training import Interruptible, require_disk

from .compose import compose

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
    resume = arguments.resume == "auto"
    if arguments.overwrite and resume:
        raise ConfigError("--overwrite and --resume auto contradict each other; give one of them")
    config = compose(arguments.overrides, command="collect", config_dir=arguments.config_dir)
    tasks, root = task_set_of(config), arguments.out
    if root.exists() and not root.is_dir():
        raise ExistsError(f"{root} is no folder; choose another place with --out")
    there = [task.name for task in tasks if (root / dataset_id_of(task)).exists()]
    if there and not arguments.overwrite and not resume:
        raise ExistsError(
            f"{root} already has demonstrations of {', '.join(there)}; pass --overwrite to replace them, "
            "--resume auto to collect only what is missing, or --out for another place"
        )
    if resume:
        for task in tasks:
            if task.name in there:
                _require_same(root, dataset_id_of(task), config)
    wanted = [task for task in tasks if arguments.overwrite or task.name not in there]
    require_experts(wanted)
    require_disk(root, DEMONSTRATION_BYTES * config.demonstrations.episodes * len(tasks))
    console = Console()
    rollouts = rollouts_for(tasks, config.runtime, lambda fault, _: say(console, str(fault)))
    try:
        with Interruptible(STOPPING) as interrupt:
            outcome = collect_into(
                root,
                tasks,
                rollouts,
                config.demonstrations,
                config.seed,
                stop=lambda: interrupt.requested,
                replace=arguments.overwrite,
            )
    except Interrupted as stopped:
        say_how_to_resume(console, stopped)
        return 130
    finally:
        rollouts.close()
    table = Table(header_style="bold")
    for column in ("dataset", "episodes", "attempts", "expert success"):
        table.add_column(column)
    for task in tasks:
        kept = str(config.demonstrations.episodes)
        if task.name in outcome:
            attempts, successes = outcome[task.name]
            table.add_row(dataset_id_of(task), kept, str(attempts), f"{successes / attempts:.2f}")
        else:
            table.add_row(dataset_id_of(task), kept, "there already", "")
    console.print(table)
    say(console, f"datasets are under {root}; Minari reads them with MINARI_DATASETS_PATH={root}")
    return 0


def _require_same(root: Path, dataset_id: str, config: Config) -> None:
    """A collection is resumed with the settings it was begun with; raises ConfigError otherwise."""
    recorded = read_provenance(root, dataset_id)["provenance"]
    asked = {"settings": plain(config.demonstrations), "seed": config.seed}
    for key, value in asked.items():
        if recorded.get(key) != value:
            raise ConfigError(
                f"{root / dataset_id} was collected with {key} {recorded.get(key)}, now it is {value}; "
                "resume with the same settings, pass --overwrite, or choose another place with --out"
            )
