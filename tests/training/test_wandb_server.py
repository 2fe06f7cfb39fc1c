"""The mode online against a server of our own: what is sent, under which id, and what silence costs."""

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "0123456789" * 4
RUN = {"id": "x", "displayName": "x", "config": "{}", "historyLineCount": 0,
       "project": {"id": "p", "name": "mtrl", "entity": {"id": "e", "name": "me"}}}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Answers the few questions that W&B asks of its server, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, *, silent: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.over = threading.Event()
        self.silent = silent
        """Whether it stops answering once the run has begun."""
        self.run_ids: list[str] = []
        self.rows: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "UpsertBucket" in query:
            self.run_ids.append(variables["name"])
            return {"upsertBucket": {"bucket": {**RUN, "name": variables["name"]}, "inserted": True}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if "RunResumeStatus" in query:
            return {"model": {"id": "p", "name": "mtrl", "entity": {"id": "e", "name": "me"}, "bucket": None}}
        if "Viewer" in query:
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "teams": {"edges": []}}}
        return {}


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """The test's output stays clean."""

    def do_POST(self) -> None:
        content = json.loads(self._body())
        if self.path == "/graphql":
            self._reply({"data": self.server.answer(content["query"], content.get("variables") or {})})
            return
        if self._fell_silent():
            return
        lines = content.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.server.rows += [json.loads(line) for line in lines]
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        if not self._fell_silent():
            self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _fell_silent(self) -> bool:
        """Keeps whoever asks waiting until the test is over, then hangs up."""
        if self.server.silent:
            self.server.over.wait()
            self.close_connection = True
        return self.server.silent

    def _reply(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(silent=getattr(request, "param", False))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


def record(server: Server, place: Path, *sessions: list[int]) -> str:
    """What a process says that logs these steps in the mode online, session after session."""
    code = f"""
        import sys
        from pathlib import Path
        import mtrl.training.weights_and_biases as module
        from mtrl.training import Trackers
        module.FINISH_SECONDS = {2.0 if server.silent else 60.0}
        for steps in {sessions}:
            tracker = module.WandbTracker(Path(sys.argv[1]), module.WandbConfig(mode="online"))
            trackers = Trackers([tracker])
            for step in steps:
                trackers.log(step, {{"loss": 1.0 / step}})
            trackers.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(place)],
        capture_output=True, text=True, check=True, timeout=120, cwd=Path.cwd(),
        env={"PATH": "/usr/bin:/bin", "HOME": str(place), "NETRC": str(place / "netrc"),
             "WANDB_BASE_URL": server.address, "WANDB_API_KEY": KEY},
    )  # fmt: skip
    return done.stderr


def test_a_resumed_run_goes_on_under_its_id_and_sends_no_step_twice(server: Server, tmp_path: Path) -> None:
    record(server, tmp_path, [10, 20], [10, 20, 30])
    assert len(set(server.run_ids)) == 1
    assert server.run_ids[0] == json.loads((tmp_path / "wandb" / "mtrl.json").read_text())["id"]
    assert [(row["step"], row["loss"]) for row in server.rows] == [(10, 0.1), (20, 0.05), (30, 1 / 30)]


@pytest.mark.parametrize("server", [True], indirect=True)
def test_a_server_that_falls_silent_does_not_hang_the_end(server: Server, tmp_path: Path) -> None:
    """The process ends although the server never answers; `record` would run into its timeout."""
    said = record(server, tmp_path, [10, 20])
    assert "Timed out finishing run" in said
    assert server.rows == []
    assert list((tmp_path / "wandb").glob("run-*/run-*.wandb"))
