"""Two commits beside each other: ratios, rounds that survive an interruption, work trees that go away."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.two_commits.metrics import RUNS, compare_runs, describe, spelled
from benchmarks.two_commits.ratios import Comparison, Pair, better, ratio_of
from benchmarks.two_commits.trees import CommitError, hide_installed

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS, RESULTS = ROOT / "benchmarks", ROOT / "docs" / "results"

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


def pair(number: int, before: dict[str, float], after: dict[str, float], script: str = "gradients") -> Pair:
    def named(figures: dict[str, float]) -> dict[str, float]:
        return {f"{script}/{key}": value for key, value in figures.items()}

    return {
        "script": script,
        "round": number,
        "before": named(before),
        "after": named(after),
        "seconds": [1.0, 1.0],
    }


def test_every_figure_is_turned_so_that_higher_is_better() -> None:
    assert better("sac/steps_per_second", 80.0) == 80.0
    assert better("gradients/pcgrad_ms_k50", 0.5) == 2.0
    # half of the simulator's time saved, none added, as much again added
    assert [better("stepping/overhead_metaworld_official", value) for value in (-0.5, 0.0, 1.0)] == [
        2,
        1,
        0.5,
    ]
    # a difference of times below zero has no ratio to another
    assert better("stepping/overhead_cartpole_us", -1.0) is None
    assert better("sac/bf16_speedup", math.nan) is None
    with pytest.raises(CommitError, match="sac/steps_per_hour is a figure of which nobody has said"):
        better("sac/steps_per_hour", 1.0)
    with pytest.raises(CommitError, match="stepping/steps_per_second"):
        better("stepping/steps_per_second", 1.0)


@pytest.mark.parametrize("script", FIGURES)
def test_every_published_figure_has_a_direction(script: str) -> None:
    record = json.loads((RESULTS / f"{script}.json").read_text())
    figures = {key: value for key, value in record.items() if isinstance(value, float)}
    del figures["load_average"]
    assert figures and all(better(f"{script}/{key}", value) for key, value in figures.items())


def test_ratios_are_geometric_means_over_rounds_with_students_interval() -> None:
    found = ratio_of([math.log(1.1), math.log(1.2), math.log(1.3)])
    assert found.ratio == pytest.approx((1.1 * 1.2 * 1.3) ** (1 / 3))
    # logs 0.0953, 0.1823, 0.2624: mean 0.1800, deviation 0.08357; 4.3027 is the quantile of two degrees
    assert found.low is not None and found.high is not None
    reach = 4.3027 * 0.083553 / math.sqrt(3)
    assert math.log(found.high) == pytest.approx(0.180005 + reach, abs=1e-4)
    assert math.log(found.low) == pytest.approx(0.180005 - reach, abs=1e-4)
    assert ratio_of([0.0]).low is None


def test_the_mean_is_over_what_both_commits_have_in_every_round() -> None:
    old = {"mixed_efficiency": 1.0, "overhead_cartpole_us": -1.0}
    new = {"mixed_efficiency": 2.0, "overhead_cartpole_us": 1.0}
    pairs = [
        pair(1, old, new, "stepping"),
        pair(1, {"pcgrad_ms_k50": 4, "streamed_peak_ratio": 1}, {"pcgrad_ms_k50": 8, "torchjd_ratio_k10": 1}),
    ]
    comparison = Comparison.of(pairs)
    # twice as good and twice as slow
    assert {key: figure.ratio.ratio for key, figure in comparison.figures.items()} == {
        "stepping/mixed_efficiency": pytest.approx(2.0),
        "gradients/pcgrad_ms_k50": pytest.approx(0.5),
    }
    assert comparison.mean is not None and comparison.mean.ratio == pytest.approx(1.0)
    assert comparison.left_out == {
        "stepping/overhead_cartpole_us": "not always above zero, so without ratio",
        "gradients/streamed_peak_ratio": "only before has it",
        "gradients/torchjd_ratio_k10": "only after has it",
    }
    later = pair(2, {"pcgrad_ms_k50": 4.0, "streamed_peak_ratio": 1.0}, {"streamed_peak_ratio": 1.0})
    left_out = Comparison.of([*pairs, later]).left_out
    assert left_out["gradients/pcgrad_ms_k50"] == "not every round has it"


def test_commits_take_turns_in_trees_that_are_removed(
    repository: Repository, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.write("benchmarks/steppers.py", "STEPS = 1")
    before = repository.commit(1.0)
    repository.write("benchmarks/steppers.py", "STEPS = 2")
    after = repository.commit(2.0, {"ratio_sb3_fp32": 1.5})
    (repository.root / "mtrl" / "__init__.py").write_text("what the user is just writing")
    words = [before[:8], after, "--only", "sac,gradients", "--rounds", "2", "--work", str(tmp_path / "work")]
    more = ["--json", str(tmp_path / "out" / "figures.json")]
    # the stub of gradients has no such figure
    assert main([*words, *more], repository.root) == 2
    assert "gradients/ratio_sb3_fp32 is a figure of which nobody" in capsys.readouterr().err
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
    assert "steppers.py differs between the commits" in out and "geometric mean" in out
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


def write_run(folder: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines))
    return folder


def test_values_are_compared_bit_for_bit(tmp_path: Path) -> None:
    lines = ['{"step": 1, "a": 0.1, "b": null}', '{"step": 2, "a": 0.0, "b": 3}']
    old = write_run(tmp_path / "old", {"metrics.jsonl": lines, "bc/metrics.jsonl": lines})
    assert compare_runs(old, old).equal and compare_runs(old, old).values == 12

    def against(name: str, files: dict[str, list[str]]) -> str:
        outcome = compare_runs(old, write_run(tmp_path / name, files))
        return "\n".join(describe("run", outcome))

    bc = {"bc/metrics.jsonl": lines}
    # a float that came to be written as one is the same number; 0.0 and -0.0 are not
    same = {"metrics.jsonl": [lines[0], '{"step": 2, "a": 0.0, "b": 3.0}'], **bc}
    assert against("same", same) == "run: equal, 12 values"
    minus = {"metrics.jsonl": lines, "bc/metrics.jsonl": [lines[0], '{"step": 2, "a": -0.0, "b": 3}']}
    assert "bc/metrics.jsonl, step 2.0, a: before 0.0, after -0.0" in against("minus", minus)
    last = {"metrics.jsonl": ['{"step": 1, "a": 0.1, "b": null}', '{"step": 2, "a": 5e-324, "b": 4}'], **bc}
    assert "DIFFERS in 2 of 12 values; first\n  metrics.jsonl, step 2.0, a" in against("last", last)
    # a value that a record lacks differs, a key that a side lacks altogether is only named
    lacking = {"metrics.jsonl": ['{"step": 1, "a": 0.1}', lines[1]], **bc}
    assert "step 1.0, b: before None, after no value" in against("lacking", lacking)
    renamed = {"metrics.jsonl": ['{"step": 1, "a": 0.1, "c": 1}', '{"step": 2, "a": 0.0}'], **bc}
    assert against("renamed", renamed).splitlines() == [
        "run: before alone has metrics.jsonl b",
        "run: after alone has metrics.jsonl c",
        "run: equal, 10 values",
    ]
    assert "before alone has 1 records, first number 2" in against(
        "short", {"metrics.jsonl": lines[:1], **bc}
    )
    assert "before alone has 2 records, first number 1 of bc/" in against("gone", {"metrics.jsonl": lines})
    more = {"metrics.jsonl": lines, **bc, "new/metrics.jsonl": lines}
    assert against("more", more).endswith("run: equal, 12 values")
    assert "no value of metrics.jsonl is in both runs" in against("none", {})


def test_the_runs_are_settings_that_this_commit_knows() -> None:
    from mtrl.launch.compose import compose

    for words in RUNS.values():
        compose(next(spelled(words)), command="train")
