"""However a deployment ends, nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .bench_suite import BenchSuite
from .graphs import STEER, linear_artefact

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs /proc to find child processes; mend: run on Linux"
)

DRIVER = """
import sys
from pathlib import Path
from mtrl.deployment import RobotConfig, deploy
where = Path(sys.argv[1])
robot = RobotConfig(settle_decisions=1_000_000, fifo=False)
deploy(where / "artefact", robot, ["bench/point"], [2], 0, where)
"""
PATIENCE_S = 20.0


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
            for role in ("robots.simulated", "policy_loop"):
                if role.encode() in line:
                    found[role] = int(entry.name)
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that must happen soon."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class RunningDeployment:
    """A deployment of ten minutes in a process of its own, already running."""

    def __init__(self, where: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(where)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
        )
        until(lambda: len(children_of(self.process.pid)) == 2, "two child processes")
        self.children = children_of(self.process.pid)
        # Both have loaded what they need when they have used some processor time.
        until(lambda: all(map(self._shares_memory, self.children.values())), "children at work")
        time.sleep(1.0)

    @staticmethod
    def _shares_memory(process_id: int) -> bool:
        try:
            return "memfd:mtrl" in Path(f"/proc/{process_id}/maps").read_text()
        except OSError:
            return False

    def errors(self) -> str:
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return str(errors.decode())

    def assert_nothing_left(self) -> None:
        for role, child in self.children.items():
            until(lambda child=child: not alive(child), f"the end of {role}")  # type: ignore[misc]


@pytest.fixture
def running(bench: BenchSuite, tmp_path: Path) -> RunningDeployment:
    task = bench.task("bench/point", {"horizon": 30_000})
    linear_artefact(tmp_path / "artefact", [task], STEER)
    return RunningDeployment(tmp_path)


def test_ctrl_c_ends_both_processes(running: RunningDeployment) -> None:
    running.process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in running.errors()
    running.assert_nothing_left()


def test_both_processes_end_when_the_session_is_killed(running: RunningDeployment) -> None:
    running.process.kill()
    running.process.communicate(timeout=PATIENCE_S)
    running.assert_nothing_left()


def test_a_killed_policy_is_reported_and_the_robot_ends(running: RunningDeployment) -> None:
    os.kill(running.children["policy_loop"], signal.SIGKILL)
    assert "the policy's process ended during episode 1 of bench/point" in running.errors()
    running.assert_nothing_left()


def test_a_killed_robot_is_reported_and_the_policy_ends(running: RunningDeployment) -> None:
    os.kill(running.children["robots.simulated"], signal.SIGKILL)
    assert "environment of task 'bench/point' failed" in running.errors()
    running.assert_nothing_left()
