"""Studies: what is run, what is kept, what is never repeated, and pages that follow from the files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies import Finished, Study, StudyError, draw, read_finished, run_studies, write_finished
from benchmarks.studies.__main__ import RESULTS, STUDIES, main
from benchmarks.studies.record import REFERENCES
from benchmarks.studies.runner import missing, source_commit
from mtrl.evaluation import write_result
from mtrl.launch.compose import compose
from mtrl.tasks import Score, TaskSet

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task

ROOT = Path(__file__).resolve().parents[2]

STUDY = Study(
    name="small",
    question="Does it run?",
    shared=("tasks=debug",),
    variants={"base": (), "wide": ("agent.network.width=512",)},
    seeds=(1, 2),
    methods={"narrow": ("base", "student"), "wide": ("wide", "student")},
)

PROGRAM = """
import pathlib, shutil, signal, sys, time
template = pathlib.Path(sys.argv[1])
settings = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
run = pathlib.Path(settings["output"]) / settings["name"]
with (template / "started").open("a") as file:
    file.write(settings["name"] + "\\n")
def stop(number, frame):
    (template / ("saved-" + settings["name"])).touch()
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
while (template / "slow").exists():
    time.sleep(0.02)
if (template / ("fail-" + settings["name"])).exists():
    sys.exit("it went wrong")
shutil.copytree(template / "run", run, dirs_exist_ok=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Sequence[str]:
    """Stands for `mtrl`: leaves a finished run where it is told to."""
    template = tmp_path / "template"
    mixed = TaskSet([task(REACH), task(SWING, Score("return", 0.0, 1000.0))])
    outcomes = {REACH: [1, 0, 1, 1], SWING: [250.0, 750.0]}
    write_result(
        template / "run" / "evaluations" / "student-1.json", outcome_result("student", mixed, outcomes)
    )
    figures = {"wall_seconds": 90.0, "point_modes_kept": 0.4, "student_success": 0.75, "modes": {"left": 1}}
    (template / "run" / "summary.json").write_text(json.dumps(figures))
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    return [sys.executable, str(script), str(template)]


def started(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "template" / "started").read_text().split())


def test_a_study_runs_once_and_is_kept(tmp_path: Path, program: Sequence[str]) -> None:
    results = tmp_path / "results"
    results.mkdir()
    run_studies([STUDY], results, root=tmp_path, program=program)
    everything = ["base-seed1", "base-seed2", "wide-seed1", "wide-seed2"]
    assert started(tmp_path) == everything
    finished = read_finished(results / "small.json", "small")
    assert sorted(finished) == everything
    run = finished["wide-seed2"]
    assert run.command == STUDY.command("wide", 2) and "agent.network.width=512" in run.command
    assert (run.seed, run.minutes, run.split) == (2, 1.5, "test")
    assert run.figures == {"point_modes_kept": 0.4, "student_success": 0.75}
    assert run.policies["student"][REACH].outcomes == "1011"
    assert run.policies["student"][SWING].returns == (250.0, 750.0)
    assert (results / "small.md").read_text() == draw(STUDY, finished)
    before = (results / "small.json").read_bytes()
    run_studies([STUDY], results, root=tmp_path, program=program)
    assert started(tmp_path) == everything, "nothing is repeated"
    assert (results / "small.json").read_bytes() == before


def test_only_what_is_missing_runs(tmp_path: Path, program: Sequence[str]) -> None:
    run_studies([replace(STUDY, seeds=(1,))], tmp_path, root=tmp_path, program=program, jobs=1)
    assert missing(STUDY, tmp_path) == [("base", 2), ("wide", 2)]
    (tmp_path / "template" / "started").unlink()
    run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    assert started(tmp_path) == ["base-seed2", "wide-seed2"]


def test_a_failure_loses_nothing_else_and_is_tried_again(tmp_path: Path, program: Sequence[str]) -> None:
    (tmp_path / "template" / "fail-base-seed1").touch()
    with pytest.raises(StudyError, match=r"base-seed1 ended with code 1, see .*base-seed1\.log"):
        run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    assert "it went wrong" in (tmp_path / "runs/studies/small/base-seed1.log").read_text()
    assert missing(STUDY, tmp_path) == [("base", 1)]
    assert "3 of 4 runs" in (tmp_path / "small.md").read_text()
    (tmp_path / "template" / "fail-base-seed1").unlink()
    run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    assert missing(STUDY, tmp_path) == []


def test_ctrl_c_lets_trainings_save_themselves(tmp_path: Path, program: Sequence[str]) -> None:
    (tmp_path / "template" / "slow").touch()
    script = (
        "import sys; from pathlib import Path; from benchmarks.studies import Study, run_studies\n"
        "study = Study('small', '', (), {'base': ()}, (1, 2, 3), {'base': ('base', 'student')})\n"
        "run_studies([study], Path(sys.argv[1]), root=Path(sys.argv[1]), program=sys.argv[2:])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    record, deadline = tmp_path / "template" / "started", time.monotonic() + 60
    while (not record.exists() or len(record.read_text().split()) < 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert started(tmp_path) == ["base-seed1", "base-seed2"], "two side by side, the third never began"
    saved = sorted(path.name for path in (tmp_path / "template").glob("saved-*"))
    assert saved == ["saved-base-seed1", "saved-base-seed2"]
    assert not (tmp_path / "small.json").exists()


def test_a_file_of_another_command_or_study_is_refused(tmp_path: Path, program: Sequence[str]) -> None:
    run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    with pytest.raises(StudyError, match=r"holds base-seed1 of another command[^$]*tasks=mt10"):
        missing(replace(STUDY, shared=("tasks=mt10",)), tmp_path)
    shutil.copy(tmp_path / "small.json", tmp_path / "other.json")
    with pytest.raises(StudyError, match="not the file of study 'other'"):
        read_finished(tmp_path / "other.json", "other")
    content = json.loads((tmp_path / "small.json").read_text())
    del content["runs"]["base-seed1"]["policies"]["student"][REACH]["score"]
    (tmp_path / "small.json").write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"small\.json was edited or truncated"):
        read_finished(tmp_path / "small.json", "small")


def test_files_round_trip_and_repeat_themselves(tmp_path: Path, program: Sequence[str]) -> None:
    run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    finished = read_finished(tmp_path / "small.json", "small")
    again = write_finished(tmp_path / "again.json", "small", finished)
    assert again.read_bytes() == (tmp_path / "small.json").read_bytes()
    assert read_finished(again, "small") == finished
    assert read_finished(tmp_path / "absent.json", "small") == {}


def test_a_page_shows_the_mean_and_every_seed(tmp_path: Path, program: Sequence[str]) -> None:
    run_studies([STUDY], tmp_path, root=tmp_path, program=program)
    finished = read_finished(tmp_path / "small.json", "small")
    run = finished["wide-seed2"]
    reach = replace(run.policies["student"][REACH], outcomes="1111")
    better: dict[str, Finished] = finished | {
        "wide-seed2": replace(run, policies={"student": {**run.policies["student"], REACH: reach}})
    }
    rows: dict[str, str] = {}
    for line in draw(STUDY, better).splitlines():
        if "|" in line:
            rows.setdefault(line.split(" | ")[0].strip("| "), line)
    assert rows[REACH] == f"| {REACH} | 75.0 (75, 75) | 87.5 (75, 100) |"
    assert rows[SWING] == f"| {SWING} | 50.0 (50, 50) | 50.0 (50, 50) |"
    assert rows["**mean of the tasks**"].startswith("| **mean of the tasks** | 62.5 [62, 62] | 68.8 [")
    # one of four pairs of runs is a win on one of two tasks, the rest are ties: (0.75 + 0.5) / 2
    assert "| 62.5 [" in rows["**beats narrow**"]
    assert "`point_modes_kept`" in rows and "`student_success`" not in rows
    assert f"\n{run.command}\n" in draw(STUDY, better)
    dirty = {"base-seed1": replace(run, commit="0123456789abcdef-dirty")}
    assert "`0123456789ab-dirty`" in draw(STUDY, dirty) and "1 of 4 runs" in draw(STUDY, dirty)


def test_a_second_process_waits_its_turn(tmp_path: Path, program: Sequence[str]) -> None:
    place = tmp_path / "runs" / "studies" / "small"
    place.mkdir(parents=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="another process runs the study"):
            run_studies([STUDY], tmp_path, root=tmp_path, program=program)


def test_the_commit_ignores_the_results_themselves(tmp_path: Path) -> None:
    assert source_commit(tmp_path, tmp_path / "docs") is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "code.py").write_text("x = 1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.json").write_text("{}")
    clean = source_commit(tmp_path, tmp_path / "docs")
    assert clean is not None and len(clean) == 40
    (tmp_path / "code.py").write_text("x = 2\n")
    assert source_commit(tmp_path, tmp_path / "docs") == f"{clean}-dirty"


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_be_composed(name: str) -> None:
    study = STUDIES[name]
    # seeds differ in one number: one of them stands for all
    for variant, seed in dict(study.runs()).items():
        words = [word for word in study.words(variant, seed) if "=" in word]
        assert compose(words, command="train").seed == seed
    for variant, _ in study.methods.values():
        assert variant in (*study.variants, *([REFERENCES] if study.references else []))


@pytest.mark.parametrize("name", STUDIES)
def test_committed_pages_are_those_that_the_committed_files_give(name: str) -> None:
    page, file = (ROOT / RESULTS / f"{name}{ending}" for ending in (".md", ".json"))
    assert page.exists() == file.exists()
    finished = read_finished(file, name)
    missing(STUDIES[name], ROOT / RESULTS)
    assert not finished or page.read_text() == draw(STUDIES[name], finished)


def test_the_command_names_studies_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["imitatoin"]) == 2
    assert "did you mean 'imitation'" in capsys.readouterr().err
    assert main(["imitation", "--list", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("mtrl train ") == 3
    assert main(["imitation", "--draw", "--results", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir()), "nothing to draw"


def test_cosines_of_variants_with_different_tasks_stand_in_one_table() -> None:
    study = Study("pairs", "?", (), {"one": (), "other": ()}, (1,), {})
    finished = {
        study.key(variant, 1): Finished(
            command="mtrl train", seed=1, minutes=1.0, created="2026-01-01T00:00:00Z", commit=None,
            hardware="a machine", packages={}, split="test", policies={}, cosines={"critic": {pair: value}},
        )
        for variant, pair, value in (("one", "a | b", 0.25), ("other", "c | d", -0.5))
    }  # fmt: skip
    page = draw(study, finished)
    assert "| a and b | 0.250 |  |" in page
    assert "| c and d |  | -0.500 |" in page
