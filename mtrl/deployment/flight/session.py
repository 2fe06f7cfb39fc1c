"""A deployment: an artefact, a robot, one real-time episode per task.

Five processes: this one, which waits and cleans up; the robot; the policy, which proposes; the servo, which
decides; and the logger. They share memory and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
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
from ..realtime.controller import image_words
from ..realtime.processes import SessionProcesses
from ..realtime.records import ControlField, EpisodeSpec, FlightRing, SessionMemory, SessionSpec
from ..realtime.roles import FLYING
from ..realtime.ticker import stolen_seconds
from ..robots.fit import effective_site, require_pinned
from ..robots.robot import Robot, own_robot, permitted_mode
from ..robots.site import Site
from .flight import Flight
from .log import read_flight, write_flight
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
    mode: str = "",
    overwrite: bool = False,
    on_episode: Callable[[EpisodeReport], None] | None = None,
) -> DeploymentReport:
    """Runs one real-time episode per task and writes `out_dir/deployments/<suite>-<task>.json` and `.mcap`.

    `starts`: one per task. `mode`: one of `MODES`; where it is empty a simulation is flown, and a robot that
    is none is refused: "armed" must be said, and the robot's file must hold this artefact's id. An episode
    ends at the task's horizon, when the problem ends, or `settle_decisions` after the first success. Raises
    IntegrityError for an artefact that does not verify, GuardError for a task whose protocol is not the
    artefact's and for a policy or servo that died, EnvironmentFault with the traceback for a robot process
    that did, ExistsError for results that are there already, InUseError for a robot or folder that another
    process uses. Whatever happens, all processes have ended when it returns, and the log of a flight that
    began holds every tick and what ended it, even when this very process is killed. A kill of the logger too
    leaves the ticks up to `FLUSH_S` and two polls before it: `read_flight(path, unfinished=True)` reads them.
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
        mode = permitted_mode(entry, robot, mode)
        if mode != "shadow":
            ending.enter_context(own_robot(entry))
        checked = verify(artefact_dir)
        chosen = [compatible_task(checked.manifest, name) for name in tasks]
        if mode == "armed" and entry.exclusive and robot.file:
            require_pinned(Path(robot.file), checked.artefact)
        if entry.check is not None:
            entry.check(robot, chosen, checked.artefact, checked.manifest)
        site, model = _site_of(entry, robot, checked.manifest)
        _refuse_existing(_logs(folder, chosen), overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_further(folder, chosen, {_stem(entry.name) for entry in checked.manifest.tasks})
        raise_if_noted = ending.enter_context(noted_signals())
        memory = session_memory(checked.manifest, chosen, robot, checked.contents.graph, site)
        ending.callback(memory.close)
        spec = session_spec(checked, robot, chosen, starts, seed, mode, memory, folder, site, model)
        processes = SessionProcesses(memory, spec)
        ending.callback(processes.stop)
        processes.start(entry.module)
        for number, task in enumerate(chosen, start=1):
            processes.await_ready(number, task, robot.startup_timeout_s, raise_if_noted)
            report = _run_episode(processes, folder, number, task, raise_if_noted)
            reports.append(report)
            if on_episode is not None:
                on_episode(report)
    return DeploymentReport(checked.artefact, tuple(reports), time.monotonic() - begun)


def _site_of(entry: Robot, robot: RobotConfig, manifest: Manifest) -> tuple[Site | None, str]:
    """Of a robot of joints, its file with the limits in force and the text of its model."""
    if entry.site is None:
        return None, ""
    path = entry.site(robot)
    site = effective_site(path, manifest)
    return site, (path.parent / site.model).read_text(encoding="utf-8") if site.model else ""


def compatible_task(manifest: Manifest, name: str) -> Task:
    """The installed task of that name, built with the artefact's options.

    Raises GuardError when the artefact states anything about the task that is not so: the guard, the robot's
    rate and the sizes of its records rest on these numbers.
    """
    entry = manifest.task(name)
    registry.require_imports([name], "the artefact's manifest.json")
    task = registry.task(entry.name, dict(entry.options))
    found_here = TaskEntry.of(task, entry.index, entry.limits)
    shown = task.observation.pixels or ()
    if entry.pixels and shown != manifest.pixels:
        raise GuardError(
            f"the artefact was made for images {manifest.pixels} of {name}; the installed suite shows {shown}"
            ". Install the packages it was trained with, or train and export again"
        )
    # what its entries are on a robot is compared with the robot's own file
    installed = dataclasses.replace(found_here, observation=entry.observation, action=entry.action)
    for field in dataclasses.fields(TaskEntry):
        stated, found = getattr(entry, field.name), getattr(installed, field.name)
        if stated != found:
            what = field.name.removesuffix("_hash")
            raise GuardError(
                f"the artefact was made for {name} with {what} {stated}; the installed suite has {found}. "
                "Install the packages it was trained with, or train and export again"
            )
    return task


def session_spec(
    checked: VerificationReport,
    robot: RobotConfig,
    tasks: Sequence[Task],
    starts: Sequence[int],
    seed: int,
    mode: str,
    memory: SessionMemory,
    folder: Path,
    site: Site | None = None,
    model: str = "",
) -> SessionSpec:
    """The input of every process; the artefact is in it as it was verified."""
    manifest = checked.manifest
    return SessionSpec(
        artefact=checked.artefact,
        manifest=manifest.to_json(),
        graph_bytes=len(checked.contents.graph),
        episodes=tuple(
            EpisodeSpec(
                task=task.name,
                start=start,
                options=dict(task.options),
                protocol_hash=task.protocol_hash,
                guard=robot.guard(manifest, manifest.task(task.name)),
                log=str(log.resolve()),
            )
            for task, start, log in zip(tasks, starts, _logs(folder, tasks), strict=True)
        ),
        robot=robot,
        mode=mode,
        joints=tuple(joint.name for joint in site.joints) if site is not None else (),
        site=site.to_json() if site is not None else "",
        model=model,
        seed=seed,
        parent=os.getpid(),
        blocks=memory.descriptors(),
    )


def session_memory(
    manifest: Manifest, tasks: Sequence[Task], robot: RobotConfig, graph: bytes, site: Site | None = None
) -> SessionMemory:
    """Shared memory for these tasks, one after the other."""
    return SessionMemory.create(
        max(task.observation.state or 0 for task in tasks),
        max(manifest.task(task.name).action_size for task in tasks),
        HOLD_MARGIN * (max(task.horizon_decisions for task in tasks) + 1),
        math.ceil(
            HOLD_MARGIN * robot.servo_hz * (1 + max(task.horizon_decisions / task.rate_hz for task in tasks))
        ),
        graph,
        len(site.joints) if site is not None else 0,
        image_words(manifest.pixels),
    )


def _run_episode(
    processes: SessionProcesses,
    folder: Path,
    number: int,
    task: Task,
    raise_if_noted: Callable[[], None],
) -> EpisodeReport:
    """Runs one episode, and writes its report, and its log whatever ends the episode."""
    memory, spec = processes.memory, processes.spec
    episode = spec.episodes[number - 1]
    log = folder / Path(episode.log).name
    log.with_suffix(".json").unlink(missing_ok=True)
    stolen = stolen_seconds()
    try:
        processes.run_episode(number, task, spec.robot.startup_timeout_s, raise_if_noted)
    except BaseException as error:
        processes.stop(FLYING)
        _finish_log(processes, number, log, ending_of(error))
        raise
    stolen = stolen_seconds() - stolen
    _finish_log(processes, number, log, "the episode was over")
    flight = read_flight(log)
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
    write_text(log.with_suffix(".json"), text + "\n", overwrite=True)
    return report


def _finish_log(processes: SessionProcesses, number: int, log: Path, ending: str) -> None:
    """Ends the log of an episode; writes it from the servo's ring where the logger did not."""
    if processes.finish_log(number, ending):
        return
    memory, spec = processes.memory, processes.spec
    episode, entry = spec.episodes[number - 1], Manifest.from_json(spec.manifest)
    sizes = entry.task(episode.task)
    ring = FlightRing(memory.ring, sizes.state_size, sizes.action_size, spec.joint_words(sizes.action_size))
    begun = memory.control[ControlField.SERVO_READY] >= number
    rows = int(memory.control[ControlField.ROWS]) if begun else 0
    about = Flight.begun(spec, episode, sizes)
    clock_ns = time.time_ns() - time.monotonic_ns()
    flight = dataclasses.replace(about, clock_ns=clock_ns, ending=ending).with_rows(ring, 0, rows)
    write_flight(log, flight)


def _logs(folder: Path, tasks: Sequence[Task]) -> list[Path]:
    """One log an episode: those of a/b are a-b.mcap, a-b-2.mcap and so on."""
    logs: dict[Path, None] = {}
    for task in tasks:
        stem = _stem(task.name)
        names = (f"{stem}.mcap", *(f"{stem}-{number}.mcap" for number in range(2, len(tasks) + 2)))
        logs[next(folder / name for name in names if folder / name not in logs)] = None
    return list(logs)


def _refuse_existing(logs: Sequence[Path], overwrite: bool) -> None:
    for path in (log.with_suffix(suffix) for log in logs for suffix in (".json", ".mcap")):
        if path.exists() and not overwrite:
            raise ExistsError(
                f"{path} already exists; choose another --out, or pass --overwrite to replace it"
            )


def _remove_further(folder: Path, tasks: Sequence[Task], stems: set[str]) -> None:
    """Removes what an earlier flight of more episodes left of these tasks: reports are read together."""
    written = set(_logs(folder, tasks))
    for stem in {_stem(task.name) for task in tasks}:
        for number in itertools.count(2):
            log = folder / f"{stem}-{number}.mcap"
            if not any(log.with_suffix(suffix).exists() for suffix in (".json", ".mcap")):
                break
            # a task of the artefact may be called as an episode of another one is
            if log not in written and log.stem not in stems:
                log.unlink(missing_ok=True)
                log.with_suffix(".json").unlink(missing_ok=True)


def _stem(task: str) -> str:
    return task.replace("/", "-")
