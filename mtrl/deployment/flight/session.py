"""A deployment: an artefact, a robot, one real-time episode per task.

Three processes: this one, which waits, writes logs between episodes and cleans up; the robot; and the
policy with its guard. They share memory and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mtrl import registry
from mtrl.atomic import write_text
from mtrl.errors import ConfigError, ExistsError, GuardError
from mtrl.run_directory import own_folder
from mtrl.tasks import Task

from ..artefact.files import VerificationReport, verify
from ..artefact.manifest import Manifest
from ..guard.limits import RobotConfig
from ..realtime.processes import SessionProcesses
from ..realtime.records import ControlField, EpisodeSpec, FlightRing, SessionMemory, SessionSpec
from ..realtime.ticker import stolen_seconds
from ..robots.robot import Robot, own_robot
from .log import Flight, write_flight
from .report import DeploymentReport, EpisodeReport, episode_report

HOLD_MARGIN = 4
"""Rows of the flight ring per decision of the horizon: space for ticks that only hold."""

REPORTS = "deployments"
"""Folder of result files and logs inside `out_dir`."""


def deploy(
    artefact_dir: Path,
    robot: RobotConfig,
    tasks: Sequence[str],
    starts: Sequence[int],
    seed: int,
    out_dir: Path,
    *,
    overwrite: bool = False,
    on_episode: Callable[[EpisodeReport], None] | None = None,
) -> DeploymentReport:
    """Runs one real-time episode per task and writes `out_dir/deployments/<suite>-<task>.json` and `.mcap`.

    `starts`: one per task. An episode ends at the task's horizon, when the problem ends, or
    `settle_decisions` after the first success. Raises IntegrityError for an artefact that does not
    verify, GuardError for a task whose protocol is not the artefact's and for a policy process that
    died, EnvironmentFault with the traceback for a robot process that did, ExistsError for results that
    are there already, InUseError for a robot or folder that another process uses. Whatever happens, both
    processes have ended when it returns.
    """
    entry: Robot = registry.load("robot", robot.name)
    with own_folder(out_dir / REPORTS), own_robot(entry):
        return _deploy(artefact_dir, entry, robot, tasks, starts, seed, out_dir, overwrite, on_episode)


def _deploy(
    artefact_dir: Path,
    entry: Robot,
    robot: RobotConfig,
    tasks: Sequence[str],
    starts: Sequence[int],
    seed: int,
    out_dir: Path,
    overwrite: bool,
    on_episode: Callable[[EpisodeReport], None] | None,
) -> DeploymentReport:
    begun = time.monotonic()
    if not tasks or len(tasks) != len(starts):
        raise ConfigError(
            f"deploy needs at least one task and one start per task; got {len(tasks)}, {len(starts)}"
        )
    checked = verify(artefact_dir)
    chosen = [compatible_task(checked.manifest, name) for name in tasks]
    folder = out_dir / REPORTS
    _refuse_existing(folder, tasks, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    memory = SessionMemory.create(
        max(task.observation.state or 0 for task in chosen),
        max(task.action.continuous for task in chosen),
        HOLD_MARGIN * (max(task.horizon_decisions for task in chosen) + 1),
    )
    spec = SessionSpec(
        artefact=str(artefact_dir.resolve()),
        episodes=tuple(
            EpisodeSpec(task.name, start, dict(task.options), task.protocol_hash)
            for task, start in zip(chosen, starts, strict=True)
        ),
        robot=robot,
        seed=seed,
        parent=os.getpid(),
        blocks=memory.descriptors(),
    )
    reports = []
    processes = SessionProcesses(memory, spec)
    try:
        processes.start("robot", entry.module)
        processes.start("policy", "mtrl.deployment.realtime.policy_loop")
        for number, task in enumerate(chosen, start=1):
            processes.await_ready(number, task, robot.startup_timeout_s)
            stolen = stolen_seconds()
            processes.run_episode(number, task, robot.startup_timeout_s)
            stolen = stolen_seconds() - stolen
            report = _record(memory, folder, number, task, spec, checked, stolen)
            reports.append(report)
            if on_episode is not None:
                on_episode(report)
    finally:
        processes.stop()
        memory.close()
    return DeploymentReport(checked.artefact, tuple(reports), time.monotonic() - begun)


def compatible_task(manifest: Manifest, name: str) -> Task:
    """The installed task of that name, built with the artefact's options.

    Raises GuardError when its protocol differs from the one that the artefact was made for.
    """
    entry = manifest.task(name)
    task = registry.task(entry.name, dict(entry.options))
    if task.protocol_hash != entry.protocol_hash:
        raise GuardError(
            f"the artefact was made for {name} with protocol {entry.protocol_hash}; the installed suite has "
            f"{task.protocol_hash}. Install the packages it was trained with, or train and export again"
        )
    return task


def _record(
    memory: SessionMemory,
    folder: Path,
    number: int,
    task: Task,
    spec: SessionSpec,
    checked: VerificationReport,
    stolen: float,
) -> EpisodeReport:
    """Turns the shared memory of an episode that has ended into its log and result file."""
    entry = checked.manifest.task(task.name)
    ring = FlightRing(memory.ring, entry.state_size, entry.action_size)
    rows = int(memory.control[ControlField.ROWS])
    flight = Flight.of(ring, rows, task.name, checked.artefact, spec.robot.guard(checked.manifest, entry))
    log = _path(folder, task.name, ".mcap")
    report = episode_report(
        flight,
        memory,
        spec,
        spec.episodes[number - 1],
        rate_hz=task.rate_hz,
        stolen_seconds=stolen,
        log=log,
    )
    write_flight(log, flight)
    text = json.dumps(report.as_json(), indent=2, allow_nan=False)
    write_text(_path(folder, task.name, ".json"), text + "\n", overwrite=True)
    return report


def _path(folder: Path, task: str, suffix: str) -> Path:
    """The file of a task in `folder`: "metaworld/reach-v3" becomes "metaworld-reach-v3" and the suffix."""
    return folder / (task.replace("/", "-") + suffix)


def _refuse_existing(folder: Path, tasks: Sequence[str], overwrite: bool) -> None:
    for name in tasks:
        path = _path(folder, name, ".json")
        if path.exists() and not overwrite:
            raise ExistsError(
                f"{path} already exists; choose another --out, or pass --overwrite to replace it"
            )
