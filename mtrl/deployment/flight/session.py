"""A deployment: an artefact, a robot, one real-time episode per task.

Three processes: this one, which waits, writes logs and cleans up; the robot; and the policy with its guard.
They share memory and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ..artefact.manifest import Manifest, TaskEntry
from ..guard.limits import RobotConfig
from ..realtime.processes import SessionProcesses
from ..realtime.records import EpisodeSpec, FlightRing, SessionMemory, SessionSpec
from ..realtime.ticker import stolen_seconds
from ..robots.robot import Robot, own_robot
from .flight import Flight
from .recorder import FlightRecorder
from .report import DeploymentReport, EpisodeReport, episode_report
from .signals import ending_of, noted_signals

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
    processes have ended when it returns, and the log of a flight that began holds every tick and what ended
    it. A kill of this very process leaves the ticks up to `FLUSH_S` and two polls before it, which
    `read_flight(path, unfinished=True)` reads.
    """
    begun = time.monotonic()
    if not tasks or len(tasks) != len(starts):
        raise ConfigError(
            f"deploy needs at least one task and one start per task; got {len(tasks)}, {len(starts)}"
        )
    entry: Robot = registry.load("robot", robot.name)
    folder = out_dir / REPORTS
    reports = []
    with contextlib.ExitStack() as ending:
        ending.enter_context(own_folder(folder))
        ending.enter_context(own_robot(entry))
        checked = verify(artefact_dir)
        chosen = [compatible_task(checked.manifest, name) for name in tasks]
        if entry.check is not None:
            entry.check(robot, chosen, checked.artefact)
        _refuse_existing(folder, tasks, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        raise_if_noted = ending.enter_context(noted_signals())
        memory = _memory(checked.manifest, chosen, checked.contents.graph)
        ending.callback(memory.close)
        processes = SessionProcesses(memory, _spec(checked, robot, chosen, starts, seed, memory))
        ending.callback(processes.stop)
        processes.start("robot", entry.module)
        processes.start("policy", "mtrl.deployment.realtime.policy_loop")
        for number, task in enumerate(chosen, start=1):
            processes.await_ready(number, task, robot.startup_timeout_s, raise_if_noted)
            report = _run_episode(processes, folder, number, task, checked.artefact, raise_if_noted)
            reports.append(report)
            if on_episode is not None:
                on_episode(report)
    return DeploymentReport(checked.artefact, tuple(reports), time.monotonic() - begun)


def compatible_task(manifest: Manifest, name: str) -> Task:
    """The installed task of that name, built with the artefact's options.

    Raises GuardError when the artefact states anything about the task that is not so: the guard, the robot's
    rate and the sizes of its records rest on these numbers.
    """
    entry = manifest.task(name)
    registry.require_imports([name], "the artefact's manifest.json")
    task = registry.task(entry.name, dict(entry.options))
    installed = TaskEntry.of(task, entry.index, entry.limits)
    for field in dataclasses.fields(TaskEntry):
        stated, found = getattr(entry, field.name), getattr(installed, field.name)
        if stated != found:
            what = field.name.removesuffix("_hash")
            raise GuardError(
                f"the artefact was made for {name} with {what} {stated}; the installed suite has {found}. "
                "Install the packages it was trained with, or train and export again"
            )
    return task


def _spec(
    checked: VerificationReport,
    robot: RobotConfig,
    tasks: Sequence[Task],
    starts: Sequence[int],
    seed: int,
    memory: SessionMemory,
) -> SessionSpec:
    """The input of both processes; the artefact is in it as it was verified."""
    manifest = checked.manifest
    return SessionSpec(
        manifest=manifest.to_json(),
        graph_bytes=len(checked.contents.graph),
        episodes=tuple(
            EpisodeSpec(
                task=task.name,
                start=start,
                options=dict(task.options),
                protocol_hash=task.protocol_hash,
                guard=robot.guard(manifest, manifest.task(task.name)),
            )
            for task, start in zip(tasks, starts, strict=True)
        ),
        robot=robot,
        seed=seed,
        parent=os.getpid(),
        blocks=memory.descriptors(),
    )


def _memory(manifest: Manifest, tasks: Sequence[Task], graph: bytes) -> SessionMemory:
    return SessionMemory.create(
        max(task.observation.state or 0 for task in tasks),
        max(manifest.task(task.name).action_size for task in tasks),
        HOLD_MARGIN * (max(task.horizon_decisions for task in tasks) + 1),
        graph,
    )


def _run_episode(
    processes: SessionProcesses,
    folder: Path,
    number: int,
    task: Task,
    artefact: str,
    raise_if_noted: Callable[[], None],
) -> EpisodeReport:
    """Runs one episode, and writes its report, and its log whatever ends the episode."""
    memory, spec = processes.memory, processes.spec
    episode, log = spec.episodes[number - 1], _path(folder, task.name, ".mcap")
    _path(folder, task.name, ".json").unlink(missing_ok=True)
    ring = FlightRing(memory.ring, task.observation.state or 0, episode.guard.action_size)
    recorder = FlightRecorder(log, memory, number, Flight.of(ring, 0, task.name, artefact, episode.guard))

    def each_poll() -> None:
        raise_if_noted()
        recorder.update()

    stolen = stolen_seconds()
    try:
        processes.run_episode(number, task, spec.robot.startup_timeout_s, each_poll)
    except BaseException as error:
        processes.stop()
        recorder.close(ending_of(error))
        raise
    stolen = stolen_seconds() - stolen
    flight = recorder.close("the episode was over")
    report = episode_report(
        flight,
        memory,
        spec,
        episode,
        rate_hz=task.rate_hz,
        score=task.score.kind,
        stolen_seconds=stolen,
        log=log,
    )
    text = json.dumps(report.as_json(), indent=2, allow_nan=False)
    write_text(_path(folder, task.name, ".json"), text + "\n", overwrite=True)
    return report


def _path(folder: Path, task: str, suffix: str) -> Path:
    """The file of a task in `folder`: "metaworld/reach-v3" becomes "metaworld-reach-v3" and the suffix."""
    return folder / (task.replace("/", "-") + suffix)


def _refuse_existing(folder: Path, tasks: Sequence[str], overwrite: bool) -> None:
    for path in (_path(folder, name, suffix) for name in tasks for suffix in (".json", ".mcap")):
        if path.exists() and not overwrite:
            raise ExistsError(
                f"{path} already exists; choose another --out, or pass --overwrite to replace it"
            )
