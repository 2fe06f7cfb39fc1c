"""A deployment in a process of its own, which tests kill, stop and interrupt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mtrl.deployment import read_flight
from mtrl.errors import IntegrityError

PATIENCE_S = 90.0
MODULES = {
    "robot": b"robots.simulated",
    "policy": b"realtime.policy_loop",
    "servo": b"realtime.servo",
    "logger": b"flight.logger",
}
PATIENT = (
    "robot.fifo=false",
    "robot.startup_timeout_s=15",
    "robot.settle_decisions=1000000",
    "robot.stale_limit_ms=1000",
    "robot.inference_deadline_ms=1000",
    "robot.proposal_periods=50",
)
"""For a machine that is busy with other things too; the robot's own time limit is as it is."""


def alive(process_id: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(process_id: int) -> dict[str, int]:
    """Role -> process id, from the command lines of the process's children."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == process_id:
            for role, module in MODULES.items():
                if module in line:
                    found[role] = int(entry.name)
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that must happen soon."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class RunningDeployment:
    """`mtrl deploy WHERE/artefact --out WHERE`, in flight: ten ticks of its log are on the disk."""

    def __init__(self, where: Path) -> None:
        self.log = where / "deployments" / "bench-point.mcap"
        words = ["deploy", str(where / "artefact"), *PATIENT, "--out", str(where)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtrl.launch.main", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        until(lambda: self.process.poll() is not None or self.ticks() >= 10, "ten ticks")
        self.children = children_of(self.process.pid)

    def ticks(self) -> int:
        """Ticks of the log that are on the disk."""
        try:
            return len(read_flight(self.log, unfinished=True).numbers)
        except IntegrityError:
            return 0

    def end(self) -> str:
        """Waits for the end of the command and of its children, and returns what it printed."""
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        for role, child in self.children.items():
            until(lambda child=child: not alive(child), f"the end of {role}")  # type: ignore[misc]
        return str(printed.decode())
