"""What a job's submission refuses, before anything is sent; and one job on a real server, to its stop."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrl.distributed.jobs import JobServer, upload_of
from mtrl.errors import ConfigError, MtrlError, ResourceError, UnknownNameError
from mtrl.launch.main import main
from mtrl.launch.submit import checked

TOKEN = "s" * 43
HEAD = """
import sys, ray
started = ray.init(
    address="local", num_cpus=2, num_gpus=0, include_dashboard=True, dashboard_host="127.0.0.1",
    dashboard_port=int(sys.argv[1]), object_store_memory=100 * 2**20, log_to_driver=False)
print(started.dashboard_url, flush=True)
sys.stdin.read()
"""


def test_what_travels_is_selected_and_measured(tmp_path: Path) -> None:
    for name in ("a/b.py", "big.bin", "ignored.bin", "runs/r/x", ".git/x", ".venv-ros/x", "a/runs/kept"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x" * 10)
    (tmp_path / ".gitignore").write_text("ignored.bin\n")
    with (tmp_path / "big.bin").open("ab") as file:
        file.truncate(1000)
    found = upload_of(tmp_path, ["b.py"])
    assert {str(path) for _, path in found.files} == {"big.bin", "a/runs/kept", ".gitignore"}
    assert found.files[0] == (1000, Path("big.bin"))
    assert found.total == 1000 + 10 + len("ignored.bin\n")


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    for name, size in (("small", 10), ("movie.mp4", 90), ("weights.bin", 60)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * 2**20)
    with pytest.raises(
        ResourceError, match=r"160\.0 MiB; at most 100\.0 MiB .*: movie\.mp4 \(90\.0 MiB\), we"
    ):
        upload_of(tmp_path)
    assert upload_of(tmp_path, ["movie.mp4"]).total == 70 * 2**20


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (["tarin"], UnknownNameError, "train"),
        (["submit", "--list"], UnknownNameError, "unknown command"),
        (["train", "experiment=debug"], ConfigError, r"output runs would lie .* output=/shared/runs"),
        (["train", "sed=3"], UnknownNameError, "seed"),
        (["report", "runs/a"], ConfigError, r"the run runs/a would lie"),
    ],
)
def test_a_command_is_refused_here_for_what_it_would_be_there(
    words: list[str], kind: type[MtrlError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        checked(words)


def test_a_job_on_ray_joins_its_own_cluster() -> None:
    words = ["train", "experiment=debug", "output=/a", "--resume", "auto"]
    assert checked([*words, "runtime=ray"]) == [*words, "runtime=ray", "runtime.address=auto"]
    assert checked([*words, "runtime=local"]) == [*words, "runtime=local"]
    search = ["tune", "tasks=point/obstacle", "agent=sac", "output=/a", "agent.discount=choice(0.9,0.99)"]
    assert checked(search) == [*search, "--address", "auto"]


@contextlib.contextmanager
def answering(version: str, token: str = "") -> Iterator[str]:
    """A server of that version of Ray, which asks for the token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get("Authorization", "")
            status = 200 if sent == (f"Bearer {token}" if token else "") else 403 if sent else 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"ray_version": version}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_server_of_another_version_is_refused_with_both(no_token: pytest.MonkeyPatch) -> None:
    with (
        answering("2.59.1") as address,
        pytest.raises(ConfigError, match=r"runs Ray 2\.59\.1, this process Ray 2\.60"),
    ):
        JobServer(address)


def test_a_missing_token_and_a_wrong_one_are_told_apart(no_token: pytest.MonkeyPatch) -> None:
    with answering("2.59.1", TOKEN) as address:
        with pytest.raises(ConfigError, match=r"asks for its token, and none was found here.*get-auth-token"):
            JobServer(address)
        no_token.setenv("RAY_AUTH_TOKEN", "another")
        with pytest.raises(ConfigError, match=r"the one found here \(7 characters\) is another"):
            JobServer(address)
        no_token.setenv("RAY_AUTH_TOKEN", TOKEN)
        with pytest.raises(ConfigError, match=r"runs Ray 2\.59\.1"):
            JobServer(address)


def test_nothing_listens_or_something_else_does(no_token: pytest.MonkeyPatch, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    began = time.monotonic()
    assert main(["submit", "--address", f"127.0.0.1:{port}", "--list"]) == 2
    assert f"no Jobs server answers at http://127.0.0.1:{port}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="jobs are submitted over HTTP"):
        JobServer("ray://127.0.0.1:10001")
    assert time.monotonic() - began < 30, "Ray itself tries for longer"


def mtrl(*words: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mtrl.launch.main", *words],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_is_submitted_followed_left_and_stopped_with_a_save(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    checkout = str(Path(__file__).parents[3])
    variables = {
        "RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "token", "RAY_TMPDIR": f"/tmp/j{os.getpid()}",
        "PYTHONPATH": checkout, "HOME": str(tmp_path),
    }  # fmt: skip
    folder, runs = tmp_path / "work", tmp_path / "runs"
    folder.mkdir()
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(port)], env={**os.environ, **variables}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    server = ["submit", "--address", f"127.0.0.1:{port}"]
    name = f"$(touch {tmp_path}/ran) a;b"
    train = [
        "train", "tasks=point/obstacle", "agent=sac", "online.steps=10000000", "stages=[train]",
        f"output={runs}", f"name={name}", "runtime=ray", "runtime.actors=1",
    ]  # fmt: skip
    try:
        assert head.stdout is not None
        assert str(port) in head.stdout.readline()
        own = ["--env", f"PYTHONPATH={checkout}", "--name", "a job"]
        following = mtrl(*server, *own, "--", *train, folder=folder, **variables)
        assert following.stdout is not None
        for line in following.stdout:
            if "train sac" in line:
                break
        following.send_signal(2)
        left = following.communicate(timeout=60)[0]
        assert following.returncode == 130, left
        assert "the job a job goes on" in left
        assert "--follow 'a job'" in left
        again = mtrl(*server, *own, "--", *train, folder=folder, **variables)
        assert "has a job 'a job'; choose another --name" in again.communicate(timeout=120)[0]
        assert again.returncode == 2
        stopped = mtrl(*server, "--stop", "a job", folder=folder, **variables)
        said = stopped.communicate(timeout=240)[0]
        assert stopped.returncode == 0, said
        assert "job a job: STOPPED" in said
        assert said.rstrip().endswith("runtime.address=auto --resume auto")
        assert list((runs / name / "checkpoints").iterdir()), "the stop saved"
        assert not (tmp_path / "ran").exists()
        listed = mtrl(*server, "--list", "--json", folder=folder, **variables).communicate(timeout=120)[0]
        (job,) = json.loads(listed)
        assert (job["status"], job["words"][:9]) == ("STOPPED", train)
    finally:
        head.communicate(timeout=60)
