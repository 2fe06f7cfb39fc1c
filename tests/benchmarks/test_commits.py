"""Two commits beside each other: turns, rounds that survive an interruption, work trees that go away."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.two_commits.metrics import spelled
from benchmarks.two_commits.trees import hide_installed

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

STUB = """
import json, os, pathlib, sys, time
import mtrl
path = pathlib.Path(next(word for word in sys.argv if word.startswith("--json="))[7:])
name, place = pathlib.Path(__file__).stem, pathlib.Path({place!r})
with (place / "started").open("a") as file:
    file.write(f"{{name}} {{mtrl.FACTOR}}\\n")
while (place / f"slow-{{name}}").exists():
    time.sleep(0.02)
figures = {{key: value * mtrl.FACTOR for key, value in {figures!r}[name].items()}}
path.write_text(json.dumps({{"title": "x", "bars": {{}}, "load_average": 3.5, **figures, **mtrl.MORE}}))
"""
TRAINER = """
import json, pathlib, sys
import mtrl
settings = dict(word.split("=", 1) for word in sys.argv[2:])
if mtrl.UNKNOWN in settings:
    sys.exit(2)
run = pathlib.Path(settings["output"], settings["name"])
run.mkdir()
(run / "metrics.jsonl").write_text(json.dumps({"step": 5, "loss": 0.1 * mtrl.FACTOR}) + "\\n")
"""
FIGURES = {
    "stepping": {"mixed_efficiency": 1.0},
    "gradients": {"pcgrad_ms_k50": 1.0},
    "sac": {"steps_per_second": 50.0},
}


def git(root: Path, *words: str) -> str:
    """The output of a git command that depends on nobody's settings."""
    names = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(
        ["git", "-C", str(root), *names, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Repository:
    """A tiny repository with stub benchmarks, whose figures are multiplied by the commit's factor."""

    def __init__(self, folder: Path) -> None:
        self.root, self.place = folder / "repository", folder
        self.root.mkdir()
        git(self.root, "init", "--quiet")

    def commit(self, factor: float, more: dict[str, float] | None = None, unknown: str = "") -> str:
        for name in FIGURES:
            stub = STUB.format(place=str(self.place), figures=FIGURES)
            self.write(f"benchmarks/{name}.py", stub)
        self.write("mtrl/__init__.py", f"FACTOR, MORE, UNKNOWN = {factor!r}, {more or {}!r}, {unknown!r}\n")
        self.write("mtrl/launch/__init__.py", "")
        self.write("mtrl/launch/main.py", TRAINER)
        git(self.root, "add", ".")
        git(self.root, "commit", "--quiet", "-m", "x")
        return git(self.root, "rev-parse", "HEAD")

    def started(self) -> list[str]:
        return (self.place / "started").read_text().splitlines()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str], Path], int]:
    """The script's own, which finds its modules beside it; it leaves this process's signals alone."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    found: Callable[[Sequence[str], Path], int] = importlib.import_module("commits").main
    return found


def test_commits_take_turns_in_trees_that_are_removed(
    repository: Repository, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.write("benchmarks/stepped_environments.py", "STEPS = 1")
    before = repository.commit(1.0)
    repository.write("benchmarks/stepped_environments.py", "STEPS = 2")
    after = repository.commit(2.0, {"ratio_sb3_fp32": 1.5})
    (repository.root / "mtrl" / "__init__.py").write_text("what the user is just writing")
    words = [before[:8], after, "--only", "sac,gradients", "--rounds", "2", "--work", str(tmp_path / "work")]
    more = ["--json", str(tmp_path / "out" / "figures.json")]
    # the stub of gradients has no such figure
    assert main([*words, *more], repository.root) == 2
    assert "gradients/ratio_sb3_fp32 is a figure without a direction" in capsys.readouterr().err
    assert repository.started() == ["sac 1.0", "sac 2.0", "gradients 1.0", "gradients 2.0"]
    words[3] = "sac"
    assert main([*words, *more], repository.root) == 0
    assert repository.started()[4:] == ["sac 1.0", "sac 2.0"], "the first round was kept"
    record = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert (record["before"], record["after"]) == (before, after)
    assert record["figures"]["sac/steps_per_second"]["ratio"]["ratio"] == pytest.approx(2.0)
    assert record["mean"]["ratio"] == pytest.approx(2.0)
    assert record["left_out"] == {"sac/ratio_sb3_fp32": "only after has it"}
    assert [pair["round"] for pair in record["pairs"]] == [1, 2]
    out = capsys.readouterr().out
    assert "stepped_environments.py differs between the commits" in out and "geometric mean" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["figures.json"]
    assert list((tmp_path / "work").iterdir()) == []
    assert len(git(repository.root, "worktree", "list").splitlines()) == 1
    assert git(repository.root, "status", "--porcelain") == "M mtrl/__init__.py"


def test_plug_ins_are_those_of_the_work_tree(tmp_path: Path) -> None:
    hide_installed(tmp_path / "hidden")
    script = "from importlib.metadata import entry_points; print(list(entry_points(group='mtrl.agents')))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "hidden")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_an_interrupted_comparison_goes_on(
    repository: Repository, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = [repository.commit(1.0), repository.commit(1.5)]
    (tmp_path / "slow-gradients").touch()
    figures = tmp_path / "figures.json"
    words = [*commits, "--json", str(figures), "--only", "stepping,gradients", "--rounds", "1"]
    script = (
        "import sys; from pathlib import Path; import commits\n"
        "sys.exit(commits.main(sys.argv[2:], Path(sys.argv[1])))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(repository.root), *words, "--work", str(tmp_path / "work")],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() or "gradients 1.0" not in repository.started():
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and "figures.json.rounds keeps what is finished" in errors
    assert list((tmp_path / "work").iterdir()) == [] and not figures.exists()
    assert len(git(repository.root, "worktree", "list").splitlines()) == 1
    (tmp_path / "slow-gradients").unlink()
    # other commits are refused, these go on
    assert main([*reversed(commits), *words[2:]], repository.root) == 2
    assert f"holds rounds of {commits[0]} and {commits[1]}" in capsys.readouterr().err
    assert main(words, repository.root) == 0
    assert repository.started() == [
        "stepping 1.0",
        "stepping 1.5",
        "gradients 1.0",
        "gradients 1.0",
        "gradients 1.5",
    ]
    assert sorted(path.name for path in tmp_path.glob("figures*")) == ["figures.json"]


def test_what_cannot_be_compared_is_refused(
    repository: Repository, main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    commit = repository.commit(1.0)
    assert main([commit, "nowhere"], repository.root) == 2
    assert "'nowhere' is no commit of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([commit, commit, "--only", "sac,flying"], repository.root)
    assert "--only flying: expected some of stepping,sac,gradients" in capsys.readouterr().err
    git(repository.root, "rm", "--quiet", "benchmarks/sac.py")
    git(repository.root, "commit", "--quiet", "-m", "x")
    assert main([commit, "HEAD"], repository.root) == 2
    assert "has no benchmark sac; leave it out with --only stepping,gradients" in capsys.readouterr().err
    git(repository.root, "rm", "--quiet", "-r", "mtrl")
    git(repository.root, "commit", "--quiet", "-m", "x")
    # the installed one is found in its place
    assert main([commit, "HEAD"], repository.root) == 2
    assert "where its work tree was expected" in capsys.readouterr().err


def test_metrics_are_trained_at_both_commits(
    repository: Repository, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = repository.commit(1.0), repository.commit(2.0)
    assert main([before, before, "--metrics", "--only", "sac,sb3"], repository.root) == 0
    out = capsys.readouterr().out
    assert "sac: equal, 2 values" in out and "sb3: equal, 2 values" in out and "diffusion" not in out
    figures = tmp_path / "figures.json"
    assert main([before, after, "--metrics", "--only", "sac", "--json", str(figures)], repository.root) == 1
    assert "metrics.jsonl, step 5.0, loss: before 0.1, after 0.2" in capsys.readouterr().out
    assert json.loads(figures.read_text())["runs"]["sac"]["differing"] == 1
    failing = repository.commit(1.0, unknown="steps")
    assert main([before, failing, "--metrics", "--only", "sac"], repository.root) == 1
    assert "ended with status 2" in capsys.readouterr().out


def test_a_commit_takes_the_spelling_that_it_knows(
    repository: Repository, main: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, later = repository.commit(1.0, unknown="new"), repository.commit(1.0, unknown="old")
    words = ("same=1", ("new=2", "old=2"))
    assert list(spelled(words)) == [["same=1", "new=2"], ["same=1", "old=2"]]
    runs = importlib.import_module("two_commits.metrics").RUNS
    monkeypatch.setitem(runs, "sac", words)
    assert main([commit, later, "--metrics", "--only", "sac"], repository.root) == 0
