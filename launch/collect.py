"""`mtrl collect`: demonstrations from scripted experts, or transitions of a model, as Minari datasets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtrl.data import Collected, dataset_id_of, read_provenance
from mtrl.distributed import rollouts_for
from mtrl.errors import ConfigError, ExistsError, ResourceError
from mtrl.pipeline import (
    DEMONSTRATION_BYTES,
    Config,
    Interrupted,
    collect_into,
    log,
    log_continuation,
    log_interruption,
    synthesise_into,
    task_set_of,
)
from mtrl.pipeline.demonstrations import STOPPING
from mtrl.rollout import require_experts
from mtrl.structured import plain
from mtrl.tasks import Task, TaskSet
from mtrl.training import Interruptible, own_folder, require_disk

from .arguments import add_continuing, add_json, add_overrides, emit, resumes
from .compose import compose

EXAMPLES = (
    "mtrl collect tasks=mt10 episodes=50                    into datasets/, in this process",
    "mtrl collect tasks=mt10 episodes=50 runtime=ray        the same demonstrations, on Ray",
    "mtrl collect tasks=point/obstacle --out my-data seed=2 one task, elsewhere",
    "mtrl collect source=synthesised data=datasets tasks=mt10 episodes=1000 --out made  of a model",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings, the folder, and what to do with the datasets in it."""
    add_overrides(parser, "settings, such as tasks=mt10", config_dir=True)
    parser.add_argument("--out", type=Path, default=Path("datasets"), help="folder of datasets (datasets)")
    add_continuing(parser, "replace datasets that are there", "collect only what is missing")
    add_json(parser, "the datasets")


def run(arguments: argparse.Namespace) -> int:
    """Collects one dataset per task."""
    resume = resumes(arguments)
    config = compose(arguments.overrides, command="collect", config_dir=arguments.config_dir)
    tasks, root = task_set_of(config), arguments.out
    if root.exists() and not root.is_dir():
        raise ExistsError(f"{root} is no folder; choose another place with --out")
    with own_folder(root):
        return _collect(arguments, config, tasks, resume)


def _collect(arguments: argparse.Namespace, config: Config, tasks: TaskSet, resume: bool) -> int:
    root, overwrite = arguments.out, arguments.overwrite
    there = [task.name for task in tasks if (root / dataset_id_of(task)).exists()]
    if there and not overwrite and not resume:
        raise ExistsError(
            f"{root} already has demonstrations of {', '.join(there)}; pass --overwrite to replace them, "
            "--resume auto to collect only what is missing, or --out for another place"
        )
    if resume:
        for task in tasks:
            if task.name in there:
                _require_same(root, dataset_id_of(task), config)
    missing = [task for task in tasks if overwrite or task.name not in there]
    if config.demonstrations.source == "synthesised":
        return _synthesise(arguments, config, tasks, missing)
    require_experts(missing)
    require_disk(root, DEMONSTRATION_BYTES * config.demonstrations.episodes * len(tasks))
    console = Console(emoji=False)
    rollouts = rollouts_for(tasks, config.runtime, lambda fault, _: log(console, str(fault)))
    try:
        with Interruptible(STOPPING) as interrupt:
            outcome = collect_into(
                root,
                tasks,
                rollouts,
                config.demonstrations,
                config.seed,
                stop=lambda: interrupt.requested,
                replace=overwrite,
            )
    except Interrupted as stopped:
        return log_interruption(console, stopped)
    except ResourceError:
        log_continuation(console, "tasks that are finished are kept; once the cause is mended,")
        raise
    finally:
        rollouts.close()
    console.print(_table(config, tasks, outcome))
    emit(
        arguments,
        {
            "folder": root,
            "datasets": [
                {
                    "task": task.name,
                    "dataset": dataset_id_of(task),
                    "episodes": config.demonstrations.episodes,
                    **{
                        name: getattr(outcome.get(task.name), name, None)
                        for name in ("attempts", "successes", "starts")
                    },
                }
                for task in tasks
            ],
        },
    )
    variable = f"MINARI_DATASETS_PATH={shlex.quote(str(root))}"
    log(console, f"datasets are under {root}; Minari reads them with {variable}")
    return 0


def _table(config: Config, tasks: TaskSet, outcome: Mapping[str, Collected]) -> Table:
    """Every dataset and what it cost; with several tries also the share of starts that were solved."""
    table = Table(header_style="bold")
    tries = config.demonstrations.tries > 1
    for column in (
        "dataset",
        "episodes",
        "attempts",
        "expert success",
        *(["starts solved"] if tries else []),
    ):
        table.add_column(column, overflow="fold")
    for task in tasks:
        kept = str(config.demonstrations.episodes)
        if task.name in outcome:
            found = outcome[task.name]
            of = (found.attempts, found.starts)[: 1 + tries]
            shares = [f"{found.successes / count:.2f}" for count in of]
            table.add_row(dataset_id_of(task), kept, str(found.attempts), *shares)
        else:
            table.add_row(dataset_id_of(task), kept, "there already", "")
    return table


def _synthesise(
    arguments: argparse.Namespace, config: Config, tasks: TaskSet, missing: Sequence[Task]
) -> int:
    """Trains a model on all tasks, and writes transitions of those that are missing."""
    console, count = Console(emoji=False), config.demonstrations.episodes
    require_disk(arguments.out, DEMONSTRATION_BYTES * count * len(missing))
    with Interruptible("stopping; nothing is written") as interrupt:
        try:
            made = synthesise_into(
                arguments.out,
                tasks,
                missing,
                config,
                stop=lambda: interrupt.requested,
                replace=arguments.overwrite,
            )
        except Interrupted as stopped:
            return log_interruption(console, stopped)
    table = Table(header_style="bold")
    for column in ("dataset", "transitions", "difference of means", "of deviations"):
        table.add_column(column, overflow="fold")
    for task, found in made.items():
        table.add_row(task, str(count), f"{found.means:.2f}", f"{found.deviations:.2f}")
    console.print(table)
    log(console, "differences to the demonstrations: mean over the entries of a transition, in deviations")
    emit(
        arguments,
        {
            "folder": arguments.out,
            "datasets": [{"dataset": name, "episodes": count, **asdict(one)} for name, one in made.items()],
        },
    )
    return 0


def _require_same(root: Path, dataset_id: str, config: Config) -> None:
    """A collection is resumed with the settings it was begun with; raises ConfigError otherwise."""
    recorded = read_provenance(root, dataset_id)["provenance"]
    given = {"settings": plain(config.demonstrations), "seed": config.seed}
    for key, value in given.items():
        if recorded.get(key) != value:
            raise ConfigError(
                f"{root / dataset_id} was collected with {key} {recorded.get(key)}, now it is {value}; "
                "resume with the same settings, pass --overwrite, or choose another place with --out"
            )
