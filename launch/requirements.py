"""What a run will need, said before it starts."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from mtrl.training import require_disk

from .config import Config
from .session import run_name, task_set_of

MEGABYTE = 1_000_000


def require_resources(config: Config) -> None:
    """Prints steps and disk; raises ResourceError when the disk cannot hold the run.

    Memory is checked when the rollout workers start, which know what one environment holds.
    """
    tasks = task_set_of(config)
    disk = _disk_bytes(config, len(tasks))
    place = Path(config.output) / run_name(config)
    require_disk(place, disk)
    steps = f"{config.training.updates:,} updates" if "train" in config.stages else "no training"
    Console(file=sys.stderr).print(
        f"{place}: {len(tasks)} tasks, {steps}, about {disk / MEGABYTE:.0f} MB of disk", highlight=False
    )


def _disk_bytes(config: Config, tasks: int) -> int:
    """Checkpoints (weights, average, two optimiser moments), demonstrations and room for logs."""
    width = int(config.agent.get("network", {}).get("width", 256))
    blocks = int(config.agent.get("network", {}).get("blocks", 3))
    weights = 4 * (2 * blocks + 1) * width * width
    checkpoints = 3 * 4 * weights * 2
    demonstrations = 60_000 * config.demonstrations.episodes * tasks if not config.data else 0
    return checkpoints + demonstrations + 50 * MEGABYTE
