"""Real flights without a simulator: policy, servo and logger as deployed, and a robot that costs nothing."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mtrl import registry
from mtrl.deployment import Artefact, Flight, Manifest, RobotConfig, TaskEntry, verify, write_artefact
from mtrl.deployment.artefact.export import controller_cases, controller_graph
from mtrl.deployment.flight.session import session_memory, session_spec
from mtrl.deployment.realtime.processes import SessionProcesses
from mtrl.deployment.realtime.records import Column, ControlField, FlightRing
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

TASK = "metaworld/reach-v3"
ROBOT_MODULE = "robot_faults.still_robot"


class Controller(nn.Module):
    """Three hidden layers of one width over state and one-hot task; tanh actions."""

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        sizes = (layout.state_size + layout.task_count, width, width, width)
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.network = nn.Sequential(*layers, nn.Linear(width, layout.continuous_size), nn.Tanh())
        self.register_buffer("one_hot", torch.eye(layout.task_count))

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """state [N, D], task [N] -> action [N, A]."""
        action: torch.Tensor = self.network(torch.cat([state, self.one_hot[task]], dim=1))
        return action


def export(directory: Path, names: tuple[str, ...], width: int) -> tuple[Artefact, Controller]:
    """An artefact of an untrained controller for these tasks, and that controller."""
    tasks = TaskSet([registry.task(name) for name in names])
    torch.manual_seed(0)
    controller = Controller(tasks.layout, width).eval()
    draws = np.random.default_rng(0)
    states = [draws.normal(0.0, 0.3, (64, task.observation.state)) for task in tasks]
    manifest = Manifest(
        tasks=tuple(TaskEntry.of(task, index) for index, task in enumerate(tasks)),
        state_size=tasks.layout.state_size,
        action_size=tasks.layout.continuous_size,
    )
    cases = controller_cases(controller, states, tasks.layout, 0)
    write_artefact(directory, controller_graph(controller, tasks.layout), manifest, cases)
    return verify(directory).contents, controller


@dataclass
class InFlight:
    """A session whose processes run."""

    processes: SessionProcesses
    ring: FlightRing
    log: Path

    @property
    def control(self) -> np.ndarray:
        """Indexed by `ControlField`."""
        return self.processes.memory.control

    def process(self, role: str) -> int:
        """Process id of a role."""
        return self.processes.process_id(role)

    def rows(self) -> Flight:
        """What the servo recorded so far."""
        episode = self.processes.spec.episodes[0]
        count = int(self.control[ControlField.ROWS])
        return Flight.of(self.ring, count, episode.task, "", episode.guard)

    def lateness(self) -> np.ndarray:
        """Of the servo's wake-ups so far, in seconds."""
        return self.processes.memory.lateness[: int(self.control[ControlField.WAKE_UPS])].copy()

    def wait(self, seconds: float) -> None:
        """While the flight goes on."""
        time.sleep(seconds)


@contextmanager
def flight(artefact: Path, where: Path, robot: RobotConfig) -> Iterator[InFlight]:
    """A flight that has begun, of up to 500 decisions at 80 Hz; it ends with the block."""
    checked = verify(artefact)
    task = registry.task(TASK)
    memory = session_memory(checked.manifest, [task], robot, checked.contents.graph)
    spec = session_spec(checked, robot, [task], [0], 0, "armed", memory, where)
    processes = SessionProcesses(memory, spec)
    try:
        processes.start(ROBOT_MODULE)
        processes.await_ready(1, task, 120.0, lambda: None)
        memory.control[ControlField.GO] = 1
        ring = FlightRing(memory.ring, task.observation.state or 0, task.action.continuous)
        running = InFlight(processes, ring, where)
        _until(lambda: memory.control[ControlField.ROWS] >= 8)
        yield running
    finally:
        processes.stop()
        memory.close()


def _until(condition: Callable[[], bool], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the flight did not begin")
        time.sleep(0.01)


def times_of(rows: Flight, flag: int) -> np.ndarray:
    """When the commands were sent whose row has a flag; seconds of time.monotonic."""
    flags = rows.column(Column.FLAGS).astype(np.int64)
    return rows.column(Column.SENT)[(flags & flag) != 0]


def signalled(process: int, number: int) -> float:
    """Sends a signal; returns when, in seconds of time.monotonic."""
    at = time.monotonic()
    os.kill(process, number)
    return at
