"""`mtrl doctor`: every check is given broken facts, and the command runs once for real."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtrl.diagnostics import Finding, State, broken, good, optional, warning
from mtrl.diagnostics.drawing import check_encoder, check_renderer, probe_renderers
from mtrl.diagnostics.machine import (
    Folder,
    check_folder,
    check_hosts,
    check_memory,
    check_processors,
    check_realtime,
    check_shared_memory,
    check_threads,
    inspect_folder,
)
from mtrl.diagnostics.ray_ports import (
    Listener,
    RayProcesses,
    check_ray_ports,
    check_ray_version,
    ray_processes,
)
from mtrl.diagnostics.software import (
    check_extras,
    check_packages,
    check_python,
    check_wandb,
    declared_requirements,
    known_good_versions,
    requirements,
    wandb_has_key,
)
from mtrl.launch import doctor
from mtrl.launch.doctor import rendered
from mtrl.launch.main import main
from mtrl.rollout import RuntimeConfig
from mtrl.tasks import TaskSet

from ..synthetic import counter_suite, counter_task

NEEDED = requirements(
    [
        "torch<2.14,>=2.13",
        "mujoco==3.3.0",
        "ray[default,rllib]==2.60.0",
        'envpool==1.2.5; extra == "envpool"',
        "cyclonedds<12,>=11.0.1; extra == 'ros2'",
        'rosbags<0.12,>=0.11; extra == "ros2"',
    ]
)
TESTED = {"torch": "2.13.0", "mujoco": "3.3.0", "ray": "2.60.0"}
INSTALLED = {
    "torch": "2.13.0+cpu",
    "mujoco": "3.3.0",
    "ray": "2.60.0",
    "envpool": "1.2.5",
    "rosbags": "0.11.1",
}


def says(finding: Finding, state: State, *words: str) -> None:
    """A problem is named, and comes with what mends it."""
    assert finding.state is state, finding
    for word in words:
        assert word in f"{finding.text} | {finding.remedy}", finding
    assert finding.remedy or state is State.GOOD


def test_python() -> None:
    says(check_python((3, 11, 7)), State.GOOD, "3.11.7")
    says(check_python((3, 12, 1)), State.BROKEN, "3.12.1", "make PYTHON=")


def test_packages() -> None:
    (fine,) = check_packages(NEEDED, TESTED, INSTALLED)
    says(fine, State.GOOD, "3 required packages")
    facts = {**INSTALLED, "torch": "2.13.1", "mujoco": "3.4.0"}
    del facts["ray"]
    missing, wrong, untested = check_packages(NEEDED, TESTED, facts)
    says(missing, State.BROKEN, "not installed: ray", "pip install -c constraints.txt ray")
    says(wrong, State.BROKEN, "mujoco 3.4.0, needed 3.3.0", "mujoco==3.3.0")
    says(untested, State.WARNING, "torch 2.13.1, tested 2.13.0", "pip install torch==2.13.0")
    assert "mujoco" not in untested.text
    (alone,) = check_packages(NEEDED, {}, INSTALLED)
    says(alone, State.GOOD, "constraints.txt is not")


def test_extras_and_wandb() -> None:
    envpool, ros2 = check_extras(NEEDED, INSTALLED)
    says(envpool, State.GOOD, "envpool 1.2.5")
    says(ros2, State.OPTIONAL, "without cyclonedds:", "pip install 'mtrl-platform[ros2]'")
    says(check_wandb("", False), State.OPTIONAL, "wandb login")
    says(check_wandb("", True), State.GOOD, "logged in")
    says(check_wandb("offline", False), State.GOOD, "nothing is sent")


def test_a_stored_login_is_seen(tmp_path: Path) -> None:
    assert not wandb_has_key({}, tmp_path)
    assert wandb_has_key({"WANDB_API_KEY": "secret"}, tmp_path)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_has_key({}, tmp_path)
    assert not wandb_has_key({"NETRC": str(tmp_path / "other")}, tmp_path)


def test_the_checkout_tells_what_is_needed_and_tested(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    found = {item.name: item for item in declared_requirements(root)}
    assert found["mujoco"].exact == "3.3.0" and not found["mujoco"].extra
    assert found["envpool"].extra == "envpool"
    assert found["torch"].exact == ""
    assert known_good_versions(root)["mujoco"] == "3.3.0"
    assert known_good_versions(tmp_path) == {}


@pytest.mark.parametrize(
    ("chosen", "display", "errors", "state", "words"),
    [
        ("osmesa", False, {"osmesa": ""}, State.GOOD, ["MUJOCO_GL=osmesa draws"]),
        ("egl", False, {"egl": "no EGL", "osmesa": ""}, State.BROKEN, ["no EGL", "export MUJOCO_GL=osmesa"]),
        ("egl", False, {"egl": "no", "osmesa": "no"}, State.BROKEN, ["unset MUJOCO_GL", "libosmesa6"]),
        ("", True, {"": "", "osmesa": "no", "egl": "no"}, State.GOOD, ["display"]),
        ("", False, {"osmesa": "", "egl": "no"}, State.GOOD, ["OSMesa"]),
        ("", False, {"osmesa": "no", "egl": ""}, State.WARNING, ["export MUJOCO_GL=egl"]),
        ("", True, {"": "no", "osmesa": "no", "egl": "no"}, State.WARNING, ["apt-get install libosmesa6"]),
    ],
)
def test_renderer(chosen: str, display: bool, errors: dict[str, str], state: State, words: list[str]) -> None:
    says(check_renderer(chosen, display, errors), state, *words)


def test_a_wrong_renderer_is_found_without_breaking_this_process() -> None:
    errors = probe_renderers({**os.environ, "MUJOCO_GL": "nonsense"})
    assert list(errors) == ["nonsense", "osmesa", "egl"]
    assert "invalid value for environment variable MUJOCO_GL" in errors["nonsense"]


def test_encoder() -> None:
    says(check_encoder(""), State.GOOD)
    says(check_encoder("no ffmpeg"), State.WARNING, "no ffmpeg", "imageio[ffmpeg]")


def test_processors_and_threads() -> None:
    says(check_processors(4, 4, 4), State.GOOD, "4")
    says(check_processors(2, 2, 8), State.GOOD, "2 of 8")
    says(check_processors(2, 16, 16), State.WARNING, "quota", "OMP_NUM_THREADS=2")
    says(check_threads("1", "PASSIVE", 2), State.GOOD)
    says(check_threads("", "", 2), State.GOOD)
    says(check_threads("8", "", 2), State.WARNING, "on 2 processors", "OMP_NUM_THREADS=2")
    says(check_threads("many", "", 2), State.WARNING, "no number", "unset OMP_NUM_THREADS")
    says(check_threads("2", "active", 2), State.WARNING, "unset OMP_WAIT_POLICY")


def test_memory_against_the_task_set() -> None:
    tasks = TaskSet([counter_task("counter/long"), counter_task("counter/short")])
    runtime = RuntimeConfig(kind="ray")
    with counter_suite(environment_megabytes=100.0):
        # a process with torch 360 MB, ten copies of a task 1,000 MB
        found = check_memory(tasks, RuntimeConfig(), 10, 20_000, 2)
        says(found, State.GOOD, "2000 MB for all environments")
        assert "actor" not in found.text, "one process plays"
        says(check_memory(tasks, runtime, 10, 20_000, 2), State.GOOD, "2 actors", "4000 MB")
        says(
            check_memory(tasks, runtime, 10, 2_000, 2), State.WARNING, "2000 MB are free", "runtime.actors=1"
        )
        says(check_memory(tasks, runtime, 10, 1_300, 2), State.BROKEN, "evaluation.copies=1")
        workers = RuntimeConfig(workers=2)
        says(check_memory(tasks, workers, 10, 20_000, 4), State.GOOD, "2 worker processes", "4000 MB")


def test_memory_that_does_not_hold_all_environments_at_once() -> None:
    """Actors free what they need least and build it again; a process of its own keeps what it built."""
    tasks = TaskSet([counter_task("counter/long"), counter_task("counter/short")])
    with counter_suite(environment_megabytes=100.0):
        ray = check_memory(tasks, RuntimeConfig(kind="ray", actors=2), 10, 3_000, 2)
        says(ray, State.WARNING, "4000 MB", "3000 MB are free", "freed and built again", "copies below 10")
        local = check_memory(tasks, RuntimeConfig(), 10, 1_500, 2)
        says(local, State.WARNING, "none is freed", "runtime=ray")


def test_more_processes_than_processors() -> None:
    assert check_hosts(RuntimeConfig(), 1) == []
    assert check_hosts(RuntimeConfig(kind="ray"), 2) == []
    (actors,) = check_hosts(RuntimeConfig(kind="ray", actors=64), 2)
    says(actors, State.BROKEN, "runtime.actors=64", "2 are there", "at most 2")
    (workers,) = check_hosts(RuntimeConfig(workers=3), 2)
    says(workers, State.BROKEN, "runtime.workers=3", "worker process", "at most 2")
    with counter_suite(environment_megabytes=100.0):
        memory = check_memory(TaskSet([counter_task()]), RuntimeConfig(kind="ray", actors=64), 1, 9_000, 2)
    says(memory, State.GOOD, "2 actors", "9000 MB are free")


def test_a_mistake_in_a_setting_is_told_before_any_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_software", lambda: pytest.fail("a check was begun"))
    assert main(["doctor", "tasks=mt50x"]) == 2
    assert "did you mean 'mt50'" in capsys.readouterr().err


def test_places(tmp_path: Path) -> None:
    says(check_folder("runs", Folder("runs", "", 10**11), "x"), State.GOOD, "100.0 GB")
    says(
        check_folder("runs", Folder("runs", "", 10**9), "output=PATH"), State.WARNING, "1.0 GB", "output=PATH"
    )
    says(
        check_folder("runs", Folder("r", "Permission denied", 1), "o=P"),
        State.BROKEN,
        "Permission denied",
        "o=P",
    )
    found = inspect_folder(tmp_path / "not" / "yet")
    assert found.error == "" and found.free_bytes > 0
    assert list(tmp_path.iterdir()) == []
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert inspect_folder(blocked).error == "Not a directory"


def test_shared_memory_and_realtime() -> None:
    says(check_shared_memory(2**30), State.GOOD, "1.1 GB")
    says(check_shared_memory(64 * 2**20), State.WARNING, "--shm-size")
    says(check_shared_memory(None), State.WARNING, "mount")
    says(check_realtime(True, True), State.GOOD)
    lock = check_realtime(True, False)
    says(lock, State.OPTIONAL, "locked memory", "memlock unlimited")
    assert "real-time priority" not in lock.text
    says(check_realtime(False, False), State.OPTIONAL, "real-time priority and locked memory", "rtprio")


def test_ray() -> None:
    says(check_ray_version("2.60.0"), State.GOOD)
    says(check_ray_version(None), State.OPTIONAL, "pip install")
    says(check_ray_ports(RayProcesses()), State.GOOD, "unpickles", "trusted network")
    loopback = Listener("127.0.0.1", 6379, "gcs_server")
    says(check_ray_ports(RayProcesses((loopback,), True)), State.GOOD, "loopback only")
    everywhere = (loopback, Listener("0.0.0.0", 10001, "raylet"), Listener("::", 8076, "raylet"))
    says(
        check_ray_ports(RayProcesses(everywhere, True)),
        State.WARNING,
        "2 ports beyond loopback (8076, 10001)",
        "unpickles",
        "RAY_USE_TLS=1",
    )
    says(check_ray_ports(RayProcesses(everywhere, True, ("TLS",))), State.GOOD, "with TLS")


def test_open_ports_are_read_from_proc(tmp_path: Path) -> None:
    """A made-up /proc: a raylet on all addresses, a dashboard on loopback, a web server of somebody's."""

    def row(address: str, port: int, state: str, inode: int) -> str:
        return f"0: {address}:{port:04X} 00000000:0000 {state} 0:0 0:0 0 0 0 {inode} 1\n"

    def v4(text: str) -> str:
        return f"{struct.unpack('<I', bytes(map(int, text.split('.'))))[0]:08X}"

    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "header\n"
        + row(v4("0.0.0.0"), 10001, "0A", 11)
        + row(v4("10.0.0.1"), 10001, "01", 12)
        + row(v4("127.0.0.1"), 8265, "0A", 13)
        + row(v4("0.0.0.0"), 80, "0A", 14)
    )
    (tmp_path / "net" / "tcp6").write_text("header\n" + row("0" * 32, 6379, "0A", 15))
    processes = {
        1: (["/site/ray/core/raylet", "--port"], [11, 12, 15], ["HOME=/root", "RAY_AUTH_MODE=token"]),
        2: (["python", "/site/ray/dashboard/dashboard.py"], [13], []),
        3: (["nginx", "-c", "a", "b", "raylet"], [14], []),
    }
    for number, (command, inodes, environment) in processes.items():
        folder = tmp_path / str(number)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"\0".join(word.encode() for word in command) + b"\0")
        (folder / "environ").write_bytes(b"\0".join(word.encode() for word in environment))
        for inode in inodes:
            (folder / "fd" / str(inode)).symlink_to(f"socket:[{inode}]")
    found = ray_processes(tmp_path)
    assert found.running
    assert found.guards == ("a token",)
    assert [(listener.address, listener.port, listener.is_open) for listener in found.listeners] == [
        ("::", 6379, True),
        ("127.0.0.1", 8265, False),
        ("0.0.0.0", 10001, True),
    ]
    assert ray_processes(tmp_path / "net") == RayProcesses()


def test_every_problem_comes_with_its_remedy() -> None:
    with pytest.raises(AssertionError, match="remedy"):
        warning("something", "is odd", "")
    with pytest.raises(AssertionError, match="remedy"):
        broken("something", "is gone", "")


def test_lines_fit_and_are_coloured_only_on_a_terminal() -> None:
    finding = warning("a subject", "word " * 40, "pip install " + "something " * 12)
    lines = rendered(finding, 80, colour=False).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("warn  a subject")
    assert any(line.strip().startswith("mend: pip install") for line in lines)
    assert "\033" not in "".join(lines)
    for made, code in ((good("a", "b"), "32"), (optional("a", "b", "c"), "2"), (finding, "33")):
        assert f"\033[{code}m" in rendered(made, 80, colour=True)
    assert "\033[31m" in rendered(broken("a", "b", "c"), 80, colour=True)


def test_the_command_looks_at_this_machine() -> None:
    script = "import sys; from mtrl.launch.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", script, "doctor", "tasks=point/obstacle", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert done.returncode == int(any(one["state"] == "broken" for one in found.values()))
    assert {"Python", "renderer", "videos", "processors", "threads", "runs", "shared memory", "Ray",
            "Ray cluster", "real time", "memory, point/obstacle", "wandb"} <= set(found)  # fmt: skip
    assert found["Python"]["state"] == "good"
    assert all(one["remedy"] for one in found.values() if one["state"] != "good")


def test_a_missing_package_breaks_its_check_and_no_other(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules.update(numpy=None, rich=None)\n"
        "from mtrl.launch.main import main; sys.exit(main(['doctor']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be checked" in done.stdout
    assert "pip install -c constraints.txt numpy" in done.stdout
    assert "Ray cluster" in done.stdout and "wandb" in done.stdout


def test_a_package_that_pip_calls_otherwise_is_named_as_pip_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Callable[[], list[Finding]]:
        def check() -> list[Finding]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return check

    for checked, name in (("_drawing", "cv2"), ("_processors", "yaml.nodes"), ("_ray", "stable_baselines3")):
        monkeypatch.setattr(doctor, checked, absent(name))
    for checked in ("_software", "_gpu", "_places", "_ray_start", "_realtime", "_extras"):
        monkeypatch.setattr(doctor, checked, list)
    monkeypatch.setattr(doctor, "_memory", lambda overrides: [])
    remedies = [finding.remedy.split()[-1] for finding in doctor.examine(())]
    assert remedies == ["opencv-python-headless", "pyyaml", "stable-baselines3"]
