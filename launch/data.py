"""`mtrl data`: looks into demonstrations, converts them from and to LeRobot's format, merges them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mtrl.data import (
    Trajectories,
    dataset_id_of,
    is_lerobot,
    read_dataset,
    read_lerobot,
    read_lerobot_info,
    read_provenance,
    write_dataset,
    write_lerobot,
)
from mtrl.errors import ConfigError, ExistsError
from mtrl.evaluation import Provenance
from mtrl.pipeline import log, task_set_of
from mtrl.tasks import Task, TaskSet

from .arguments import add_json, add_overrides, emit
from .compose import compose

EXAMPLES = (
    "mtrl data inspect datasets tasks=mt10                          what mtrl collect wrote",
    "mtrl data convert datasets tasks=mt10 --to lerobot --out mt10-lerobot",
    "mtrl data convert mt10-lerobot tasks=[metaworld/push-v3] --to minari --out datasets",
    "mtrl data convert PUSHED tasks=[metaworld/push-v3] --called 'push the puck' --to minari --out datasets",
    "mtrl data merge datasets more-datasets tasks=mt10 --out merged",
)

Demonstrations = list[tuple[Task, Trajectories]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which folders."""
    parser.add_argument("verb", choices=("inspect", "convert", "merge"), help="what to do")
    parser.add_argument(
        "places", nargs="+", metavar="FOLDER", help="folders of datasets, or of one of LeRobot's"
    )
    add_overrides(parser, "tasks=... and their options, as they were collected")
    parser.add_argument("--to", choices=("lerobot", "minari"), help="format to convert into")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument(
        "--called",
        action="append",
        default=[],
        metavar="TEXT",
        help="what the LeRobot dataset calls a task, in the order of tasks=; its name in mtrl unless given",
    )
    parser.add_argument(
        "--success", action="store_true", help="every episode succeeded, where nothing says so"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a result that is there")
    add_json(parser, "the tasks of every folder")


def run(arguments: argparse.Namespace) -> int:
    """Does it; nothing is written unless everything could be read."""
    # every word is a folder or key=value: folders come first
    words = [*arguments.places, *arguments.overrides]
    places = [Path(word) for word in words if "=" not in word]
    tasks = task_set_of(compose([word for word in words if "=" in word], command="collect"))
    console = Console(emoji=False)
    for place in places:
        if not place.is_dir():
            raise ConfigError(
                f"{place} is no folder; expected datasets of `mtrl collect`, or one of LeRobot's"
            )
    _require_arguments(arguments, places)
    read = [_read(place, tasks, arguments.called, arguments.success) for place in places]
    if arguments.verb == "inspect":
        emit(arguments, [_show(console, *one) for one in zip(places, read, strict=True)])
        return 0
    origin: dict[str, object] = {
        "command": f"mtrl data {arguments.verb}",
        "from": [_origin(p, tasks) for p in places],
    }
    merged = _merged(read)
    if arguments.to == "lerobot":
        write_lerobot(arguments.out, merged, origin, arguments.overwrite)
    else:
        _write_minari(arguments.out, merged, origin, arguments.overwrite)
    emit(arguments, [_show(console, arguments.out, merged)])
    return 0


def _require_arguments(arguments: argparse.Namespace, places: Sequence[Path]) -> None:
    if arguments.verb == "inspect":
        if arguments.out is not None or arguments.to is not None:
            raise ConfigError("inspect writes nothing; leave --out and --to out")
        return
    if arguments.out is None:
        raise ConfigError(f"{arguments.verb} needs --out, the folder for its result")
    if arguments.verb == "convert" and (len(places) != 1 or arguments.to is None):
        raise ConfigError("convert takes one folder, and --to lerobot or --to minari")
    if arguments.out.resolve() in [place.resolve() for place in places]:
        raise ConfigError(f"--out={arguments.out} is read from; choose another folder")


def _read(place: Path, tasks: TaskSet, called: Sequence[str], success: bool) -> Demonstrations:
    """The demonstrations of every task that the folder has; all of them, of LeRobot's."""
    if is_lerobot(place):
        names = list(called or tasks.names)
        if len(names) != len(tasks):
            raise ConfigError(f"--called is given once a task; got {len(names)} for {len(tasks)} tasks")
        info = read_lerobot_info(place)
        found = read_lerobot(info, dict(zip(names, tasks, strict=True)), success)
        return [(task, found[name]) for name, task in zip(names, tasks, strict=True)]
    there = [task for task in tasks if (place / dataset_id_of(task)).is_dir()]
    if not there:
        raise ConfigError(f"{place} has demonstrations of none of these tasks: {', '.join(tasks.names)}")
    return [(task, read_dataset(place, dataset_id_of(task), task)) for task in there]


def _merged(read: Sequence[Demonstrations]) -> Demonstrations:
    """All episodes of a task together, in the order of the folders."""
    by_task: dict[str, Demonstrations] = {}
    for demonstrations in read:
        for task, data in demonstrations:
            by_task.setdefault(task.name, []).append((task, data))
    return [(parts[0][0], Trajectories.merged([data for _, data in parts])) for parts in by_task.values()]


def _write_minari(
    out: Path, demonstrations: Demonstrations, origin: dict[str, object], overwrite: bool
) -> None:
    """One dataset a task; refuses before the first is written."""
    there = [task.name for task, _ in demonstrations if (out / dataset_id_of(task)).exists()]
    if there and not overwrite:
        raise ExistsError(
            f"{out} already has demonstrations of {', '.join(there)}; pass --overwrite to replace them"
        )
    for task, data in demonstrations:
        write_dataset(out, dataset_id_of(task), task, data, origin, overwrite=overwrite)


def _origin(place: Path, tasks: TaskSet) -> dict[str, object]:
    """Where demonstrations come from, for the record."""
    packages = dict(Provenance.collect().packages)
    if is_lerobot(place):
        return {"format": "LeRobot", "folder": place.name, "packages": packages}
    hashes = {
        task.name: read_provenance(place, dataset_id_of(task))["root_hash"]
        for task in tasks
        if (place / dataset_id_of(task)).is_dir()
    }
    return {"format": "Minari", "folder": place.name, "datasets": hashes, "packages": packages}


def _show(console: Console, place: Path, demonstrations: Demonstrations) -> dict[str, Any]:
    """Prints a row for each task; returns folder, format and rows."""
    log(console, f"{place}{', in the format of LeRobot' if is_lerobot(place) else ''}")
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("task", overflow="fold")
    for column in ("episodes", "decisions", "length", "success", "return"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = list[dict[str, Any]]()
    for task, data in demonstrations:
        ends = np.split(data.rewards.astype(np.float64), data.offsets[1:-1])
        won = [bool(part.any()) for part in np.split(data.success, data.offsets[1:-1])]
        row = {
            "task": task.name,
            "episodes": data.episode_count,
            "decisions": data.step_count,
            "length": [int(data.lengths.min()), int(data.lengths.max())],
            "success": float(np.mean(won)),
            "return": float(np.mean([part.sum() for part in ends])),
        }
        rows.append(row)
        table.add_row(
            task.name,
            str(data.episode_count),
            f"{data.step_count:,}",
            f"{data.lengths.min()}-{data.lengths.max()}",
            f"{row['success']:.0%}",
            f"{row['return']:.1f}",
        )
    console.print(table)
    return {"folder": place, "format": "LeRobot" if is_lerobot(place) else "Minari", "tasks": rows}
