"""Whole clusters, each in a process of its own: a stranger's folder, Ctrl-C, the loss of a node."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtrl.distributed import cluster

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent


def program(name: str, folder: Path) -> subprocess.Popen[str]:
    """Starts a program of this folder elsewhere, where mtrl is found over PYTHONPATH alone."""
    found = os.pathsep.join([str(CHECKOUT), os.environ["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, "-P", str(HERE / name)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_actors_find_mtrl_and_plug_ins_and_have_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/somewhere/plug-ins", "relative"]))
    variables = cluster.worker_environment()
    folders = variables["PYTHONPATH"].split(os.pathsep)
    assert folders == [str(CHECKOUT), "/somewhere/plug-ins", str(Path.cwd() / "relative")]
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "1"


def test_ctrl_c_ends_the_run_and_every_process(marks: Path, tmp_path: Path) -> None:
    running = program("interrupted.py", tmp_path)
    assert running.stdout is not None
    try:
        word, pid = running.stdout.readline().split()
        assert word == "pid"
        os.killpg(running.pid, signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert rest == "", "Ray prints nothing"
    deadline = time.monotonic() + 20
    while alive(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(int(pid))


@pytest.mark.slow
def test_two_nodes_share_the_work_and_one_may_go(marks: Path, tmp_path: Path) -> None:
    running = program("two_nodes.py", tmp_path)
    try:
        said, errors = running.communicate(timeout=150)
    finally:
        running.kill()
    assert said.split("\n") == ["nodes 2", "replaced 1", "equal True", ""], errors
