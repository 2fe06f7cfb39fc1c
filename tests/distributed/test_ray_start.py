"""What keeps Ray from starting or joining is named with what to do, before minutes are spent on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from mtrl.distributed import cluster, head
from mtrl.distributed.ray_start import SOCKET, obstacles
from mtrl.errors import ConfigError, ResourceError
from mtrl.launch.doctor import _ray_start
from mtrl.launch.main import main
from mtrl.rollout import child_environment

LISTENER = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.create_server(("0.0.0.0", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""
REFUSED = """
from mtrl.distributed import cluster
from mtrl.rollout import RuntimeConfig
cluster.OBJECT_STORE_MEGABYTES = 1
cluster.connect(RuntimeConfig(kind="ray", actors=1))
"""


@pytest.mark.parametrize(("bytes_", "count"), [(107, 0), (108, 1)])
def test_a_socket_may_be_as_long_as_the_system_takes(bytes_: int, count: int, tmp_path: Path) -> None:
    folder = "/tmp/" + "x" * (bytes_ - len(f"/tmp//{SOCKET}"))
    assert len(f"{folder}/{SOCKET}") == bytes_
    found = obstacles({"TMPDIR": folder, "HOME": str(tmp_path)})
    assert len(found) == count
    assert all("paths of 108 bytes" in cause and "RAY_TMPDIR" in remedy for cause, remedy in found)


def test_ray_s_own_variable_stands_before_the_systems(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert obstacles({**home, "TMPDIR": "/tmp/" + "ü" * 60, "RAY_TMPDIR": "/tmp"}) == []
    (only,) = obstacles({**home, "TMPDIR": "/dev/null"})
    assert "cannot write below /dev/null" in only.cause


def test_a_token_needs_a_place_or_a_value() -> None:
    nowhere = {"HOME": "/dev/null/home"}
    (only,) = obstacles(nowhere)
    assert only.cause == "it keeps its token in /dev/null/home/.ray/auth_token, where it cannot write"
    assert "RAY_AUTH_TOKEN" in only.remedy
    for given in ({"RAY_AUTH_TOKEN": "secret"}, {"RAY_AUTH_TOKEN_PATH": "/a"}, {"RAY_AUTH_MODE": "disabled"}):
        assert obstacles({**nowhere, **given}) == []


def test_doctor_tells_of_tokens_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    (none, address) = _ray_start()
    assert "none: a cluster of `ray start` is open" in none.text and "--generate" in none.remedy
    assert address.text == "auto takes RAY_ADDRESS=10.0.0.1:6379"
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("s" * 43)
    file.chmod(0o644)
    assert _ray_start()[0].remedy == "chmod 600 ~/.ray/auth_token"
    file.chmod(0o600)
    assert _ray_start()[0].text.startswith("there is one")


def test_a_private_cluster_is_refused_and_doctor_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    with pytest.raises(ResourceError, match=r"paths of \d+ bytes.*set RAY_TMPDIR.*runtime\.workers=N"):
        cluster._start_private(1)
    assert any("paths of" in finding.text and "RAY_TMPDIR" in finding.remedy for finding in _ray_start())


def test_what_ray_itself_refuses_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", REFUSED],
        env=child_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "ResourceError: Ray did not start (ValueError: " in ended.stderr
    assert "runtime.kind=local with runtime.workers=N" in ended.stderr


def test_an_address_where_nothing_listens_is_answered_at_once() -> None:
    began = time.monotonic()
    with socket.create_server(("0.0.0.0", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"no Ray cluster answers at runtime\.address=127\.0\.0\.1:{free}"):
        cluster._join(f"127.0.0.1:{free}")
    assert time.monotonic() - began < 30, "Ray itself tries for minutes"


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port on which a process of another user listens."""
    if os.getuid() != 0:
        pytest.skip("needs another user: run as root")
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, "65534"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def test_auto_joins_no_cluster_of_another_user(stranger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.listener_uid(stranger) == 65534
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{stranger}")
    with pytest.raises(ConfigError, match=rf"{stranger}, which user \w+ runs; to join it all the same write"):
        cluster._join("auto")


@pytest.mark.slow
def test_a_missing_token_is_no_wrong_address(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"t{os.getpid()}"
    settings = {**os.environ, "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "s" * 43}
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
    program_of_ray = str(Path(sys.executable).with_name("ray"))
    words = ["--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    process = subprocess.Popen(
        [program_of_ray, "start", "--block", *words], env=settings, stdout=subprocess.DEVNULL
    )
    program = "import sys; from mtrl.distributed import cluster; cluster._join(sys.argv[1])"
    without = {**child_environment(), "RAY_TMPDIR": str(folder), "HOME": str(tmp_path)}
    try:
        deadline = time.monotonic() + 60
        while cluster.listener_uid(port) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        ended = subprocess.run(
            [sys.executable, "-P", "-c", program, f"127.0.0.1:{port}"],
            env=without, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait(60)
    assert "asks for its token, and none was found here" in ended.stderr
    assert "RAY_AUTH_TOKEN" in ended.stderr


def test_a_head_says_its_versions(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ray.get_runtime_context().gcs_address
    head.require_head(address, "runtime.address=there")
    monkeypatch.setattr(ray, "__version__", "2.59.0")
    monkeypatch.setattr("platform.python_version", lambda: "3.11.1")
    with pytest.raises(
        ConfigError, match=r"=there runs Ray 2\.60\.\d, this process Ray 2\.59\.0 and Python 3"
    ):
        head.require_head(address, "runtime.address=there")


def test_what_listens_and_is_no_head_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("0.0.0.0", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"does not answer as the head .*not of the dashboard"):
            cluster._join(address)


def test_too_many_actors_leave_nothing_behind(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment=debug", f"output={tmp_path}", "runtime=ray", "runtime.address=auto"]
    assert main(["train", *words, "runtime.actors=50"]) == 2
    assert "needs 50 processors, one per actor; 4 are there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
