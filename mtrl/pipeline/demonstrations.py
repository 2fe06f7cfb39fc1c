"""Demonstrations of a run: read from a folder of datasets, from the run, or collected now."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtrl.data import (
    Collected,
    DemonstrationConfig,
    Trajectories,
    collect_demonstrations,
    dataset_id_of,
    read_dataset,
    write_dataset,
)
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import Provenance
from mtrl.rollout import LocalRollouts, Rollouts, require_experts
from mtrl.tasks import Task, TaskSet
from mtrl.training import Needs, progress

from .config import Config, distiller_of
from .console import Interrupted
from .session import Session

DEMONSTRATIONS = "demonstrations"

STOPPING = "stopping after the episodes that are being played; tasks that are finished are kept"
"""Message on Ctrl-C while demonstrations are collected."""


def demonstrations_of(session: Session) -> dict[int, Trajectories]:
    """Task index -> demonstrations: from `data`, from the run, or collected now."""
    root = demonstrations_root(session.config, session.run.path)
    if require_demonstrable(session.config, session.tasks, session.run.path):
        with session.interrupt.message(STOPPING):
            collect_into(
                root,
                session.tasks,
                session.rollouts,
                session.config.demonstrations,
                session.config.seed,
                stop=lambda: session.interrupt.requested,
            )
    return {k: read_dataset(root, dataset_id_of(task), task) for k, task in enumerate(session.tasks)}


def demonstrations_root(config: Config, run: Path) -> Path:
    """Folder of a run's demonstrations; it need not exist yet."""
    return Path(config.data) if config.data else run / DEMONSTRATIONS


def needs_demonstrations(config: Config, tasks: TaskSet, needs: Needs) -> bool:
    """Whether the agent learns from demonstrations, or a student does."""
    distils = "distill" in config.stages and distiller_of(config, tasks)[1].offline is not None
    return needs.offline is not None or distils


def require_demonstrable(config: Config, tasks: TaskSet, run: Path) -> list[str]:
    """Names of the tasks whose demonstrations have yet to be collected; the others are there.

    Raises ConfigError when `data` lacks some, UnsupportedError when no expert can provide them.
    """
    if config.demonstrations.source != "expert":
        raise ConfigError(
            f"demonstrations.source={config.demonstrations.source} is for mtrl collect; then train with "
            "data=FOLDER"
        )
    root = demonstrations_root(config, run)
    missing = [task for task in tasks if not (root / dataset_id_of(task)).exists()]
    names = [task.name for task in missing]
    lacking = f"data={root} has no demonstrations of {', '.join(names)}"
    try:
        require_experts(missing)
    except UnsupportedError as error:
        raise UnsupportedError(f"{lacking}, and {error}" if config.data else str(error)) from error
    if config.data and missing:
        command = shlex.join(["mtrl", "collect", f"tasks=[{','.join(names)}]", "--out", str(root)])
        raise ConfigError(f"{lacking}; collect them with: {command}")
    return names


def collect_into(
    root: Path,
    tasks: TaskSet,
    rollouts: Rollouts,
    config: DemonstrationConfig,
    seed: int,
    *,
    stop: Callable[[], bool],
    replace: bool = False,
) -> dict[str, Collected]:
    """Collects and writes what is missing under `root`; returns task -> what it cost.

    With `replace` every task is collected again; an older dataset stays until its successor is written.
    Raises Interrupted when `stop` said so: the tasks that were finished are written then.
    """
    missing = [k for k, task in enumerate(tasks) if replace or not (root / dataset_id_of(task)).exists()]
    # In one process task after task, so that an interrupted collection has lost one task, not all.
    groups = [[k] for k in missing] if isinstance(rollouts, LocalRollouts) else [missing]
    outcome: dict[str, Collected] = {}
    shown = dict.fromkeys(missing, 0)
    with progress("collect demonstrations", len(missing) * config.episodes) as bar:

        def advance(k: int, kept: int) -> None:
            bar.advance(kept - shown[k], task=tasks[k].name)
            shown[k] = kept

        for group in groups:
            collected = collect_demonstrations(rollouts, tasks, config, seed, advance, only=group, stop=stop)
            for k, found in collected.items():
                _keep(root, tasks[k], found, config, seed, replace)
                outcome[tasks[k].name] = found
            if stop():
                break
    if len(outcome) < len(missing):
        raise Interrupted(f"collecting stopped with {len(outcome)} of {len(missing)} tasks finished")
    return outcome


def _keep(
    root: Path, task: Task, found: Collected, config: DemonstrationConfig, seed: int, replace: bool
) -> None:
    """Writes one task's demonstrations with their provenance."""
    provenance = Provenance.collect()
    record: dict[str, Any] = {
        "settings": dataclasses.asdict(config),
        "seed": seed,
        "attempts": found.attempts,
        "successes": found.successes,
        "starts": found.starts,
        "commit": provenance.commit,
        "packages": dict(provenance.packages),
    }
    write_dataset(root, dataset_id_of(task), task, found.trajectories, record, overwrite=replace)
