"""`mtrl compare`: what is compared with what, what is printed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mtrl.evaluation import EvaluationResult, uniform_beta_interval, wilson_interval, write_result
from mtrl.launch.main import main
from mtrl.tasks import Score, TaskSet
from mtrl.training import RunDirectory

from ..evaluation.outcomes import outcome_result
from ..evaluation.samples import REACH, SWING, task

Capture = pytest.CaptureFixture[str]

TASKS = TaskSet([task(REACH), task(SWING, Score("return", 0.0, 1000.0))])
STARTS = 20


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def result(
    label: str, solved: int, swing: float, identity: str = "", tasks: TaskSet = TASKS
) -> EvaluationResult:
    outcomes: dict[str, Sequence[float]] = {
        REACH: [1] * solved + [0] * (STARTS - solved),
        SWING: [swing + index for index in range(STARTS)],
    }
    return outcome_result(label, tasks, {t.name: outcomes[t.name] for t in tasks}, identity=identity)


def make_run(place: Path, config: dict[str, object], *results: EvaluationResult) -> Path:
    run = RunDirectory.create(place, config=config)
    for one in results:
        write_result(run.evaluations / f"{one.policy.label}-1.json", one)
    return place


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods, two seeds each; every run holds a teacher and a student."""
    for method, updates, solved in (("old", 100, 8), ("new", 200, 16)):
        for seed in (1, 2):
            name = f"{method}-seed{seed}"
            make_run(
                tmp_path / name,
                {"seed": seed, "name": name, "training": {"updates": updates}, "runtime": {"kind": "local"}},
                result("teacher", solved + seed, 300.0 + 10 * seed, f"teacher-{name}"),
                result("student", solved, 200.0 + updates, f"student-{name}"),
            )
    return tmp_path


def told(capsys: Capture, *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err, "one sentence"
    return captured.err


def test_two_runs_of_one_policy(runs: Path, capsys: Capture) -> None:
    text = told(capsys, runs / "old-seed1", runs / "new-seed1", "--policy", "student")
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["task"].split() == ["task", "measured", "old-seed1", "new-seed1"]
    # 8 and 16 of 20: +40 points, eight starts gained; +100 of a range of 1000 on each start
    assert "40.0" in rows[REACH] and "+40.0 [" in rows[REACH] and rows[REACH].rstrip().endswith("+8 -0")
    assert "+10.0 [+10, +10]" in rows[SWING]
    assert "+100.0 [+100.0, +100.0]" in rows["return"]
    mean = next(line for line in text.splitlines() if line.strip().startswith("mean score "))
    assert "+25.0 [" in mean
    assert "new-seed1 against old-seed1: +25.0 [" in text
    assert "excludes 0: new-seed1 is better" in text
    assert text == told(capsys, runs / "old-seed1", runs / "new-seed1", "--policy", "student"), (
        "repeats itself"
    )


def test_one_run_compares_its_policies(runs: Path, capsys: Capture) -> None:
    text = told(capsys, runs / "old-seed1")
    assert "student against teacher" in text
    assert "teacher against student" in told(capsys, runs / "old-seed1", "--reference", "student")


def test_labels_files_and_names_of_ones_own(runs: Path, capsys: Capture) -> None:
    text = told(capsys, f"teacher@{runs / 'old-seed1'}", f"student@{runs / 'new-seed2'}")
    assert "student against teacher" in text
    text = told(capsys, f"teacher@{runs / 'old-seed1'}", f"teacher@{runs / 'old-seed2'}")
    assert "old-seed2 against old-seed1" in text
    file = runs / "new-seed2" / "evaluations" / "student-1.json"
    assert "other against mine" in told(capsys, f"mine=teacher@{runs / 'old-seed1'}", f"other={file}")


def test_json_holds_the_figures_with_both_intervals(runs: Path, capsys: Capture) -> None:
    record = json.loads(told(capsys, runs / "old-seed1", runs / "new-seed1", "--policy=student", "--json"))
    assert record["reference"] == "old-seed1"
    (comparison,) = record["comparisons"]
    assert comparison["score"]["value"] == pytest.approx(0.25)
    assert comparison["tasks"][0]["gained"] == 8 and comparison["starts"] == 40
    reach = record["policies"][1]["tasks"][REACH]
    assert reach["success"] == 0.8
    assert tuple(reach["wilson"]) == wilson_interval(16, 20)
    assert tuple(reach["uniform_beta"]) == uniform_beta_interval(16, 20)
    assert record["warnings"] == []


def test_seeds_are_grouped_by_name_or_by_their_settings(runs: Path, capsys: Capture) -> None:
    names = [f"{m}={runs / f'{m}-seed1'},{runs / f'{m}-seed2'}" for m in ("old", "new")]
    named = json.loads(told(capsys, *names, "--policy", "teacher", "--json"))
    folders = sorted(runs.glob("*-seed*"), reverse=True)
    found = json.loads(told(capsys, *folders, "--policy=teacher", "--group", "--reference=old", "--json"))
    assert named["comparisons"] == [one | {"runs": [2, 2]} for one in named["comparisons"]]
    assert {group["name"] for group in found["groups"]} == {"old", "new"}
    assert found["comparisons"][0]["mean"]["value"] == pytest.approx(named["comparisons"][0]["mean"]["value"])
    # reach: every new run beats every old one; swing: equal seeds are equal, ties and half the pairs
    assert found["comparisons"][0]["improvement"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    text = told(capsys, *names, "--policy", "teacher")
    assert "interquartile mean" in text and "too few to rely on it" in text


def test_a_group_of_different_settings_is_refused(runs: Path, capsys: Capture) -> None:
    mixed = f"a={runs / 'old-seed1'},{runs / 'new-seed1'}"
    said = refused(capsys, mixed, f"b={runs / 'old-seed2'},{runs / 'new-seed2'}", "--policy", "teacher")
    assert "training.updates is 100 in" in said and "and 200 in" in said
    said = refused(capsys, f"a={runs / 'old-seed1'},{runs / 'old-seed2'}", runs / "new-seed1", "--policy=bc")
    assert "unknown policy" in said
    pair = f"a={runs / 'old-seed1'},{runs / 'old-seed2'}"
    assert "has 1 run" in refused(capsys, pair, runs / "new-seed1", "--policy=teacher")
    file = runs / "old-seed1" / "evaluations" / "teacher-1.json"
    other = runs / "old-seed2" / "evaluations" / "teacher-1.json"
    assert "--group needs runs" in refused(capsys, file, other, "--group")


def test_mistakes_are_one_sentence(runs: Path, capsys: Capture) -> None:
    old, new = runs / "old-seed1", runs / "new-seed1"
    assert "share the policies student, teacher; choose one with --policy" in refused(capsys, old, new)
    assert "did you mean 'teacher'" in refused(capsys, f"techer@{old}", f"teacher@{new}")
    assert "there is no" in refused(capsys, old, runs / "absent", "--policy=teacher")
    assert "are the same result" in refused(capsys, old, old, "--policy=teacher")
    assert "at least two" in refused(capsys, old, "--policy=teacher")
    assert "--reference 'x' is none of" in refused(capsys, old, "--reference", "x")
    assert "--confidence=1.5" in refused(capsys, old, "--confidence", "1.5")
    assert "names no run" in refused(capsys, "a=", old)
    empty = make_run(runs / "empty", {"seed": 1})
    assert "make one with: mtrl evaluate" in refused(capsys, empty, old, "--policy=teacher")
    folder = runs / "plain"
    folder.mkdir()
    assert "is not a run of mtrl" in refused(capsys, folder, old, "--policy=teacher")
    (old / "evaluations" / "teacher-1.json").write_text("{")
    assert "teacher-1.json is not valid JSON" in refused(capsys, old, new, "--policy=teacher")


def test_runs_that_share_no_policy_are_told_apart(runs: Path, capsys: Capture) -> None:
    lone = make_run(runs / "lone", {"seed": 1}, result("expert", 20, 900.0))
    assert "has expert" in refused(capsys, runs / "old-seed1", lone)


def test_what_cannot_be_compared_is_named(runs: Path, capsys: Capture) -> None:
    longer = TaskSet([replace(TASKS[0], horizon_decisions=400), TASKS[1]])
    make_run(runs / "longer", {"seed": 1}, result("teacher", 9, 1.0, tasks=longer))
    make_run(runs / "fewer", {"seed": 1}, result("teacher", 9, 1.0, tasks=TaskSet([TASKS[0]])))
    old = runs / "old-seed1"
    said = refused(capsys, old, runs / "longer", "--policy=teacher")
    assert "horizon_decisions is 400 against 500" in said and "evaluate both with the same command" in said
    assert f"only 'old-seed1' has {SWING}" in refused(capsys, old, runs / "fewer", "--policy=teacher")
    short = outcome_result("teacher", TASKS, {REACH: [1], SWING: [1.0]})
    make_run(runs / "short", {"seed": 1}, short)
    said = refused(capsys, old, runs / "short", "--policy=teacher")
    assert f"starts of task '{SWING}' differ" in said and "(1 against 20 starts)" in said


def test_other_versions_are_warned_of(runs: Path, capsys: Capture) -> None:
    origin = result("teacher", 9, 1.0)
    changed = replace(origin, provenance=replace(origin.provenance, packages={"numpy": "2.3"}))
    make_run(runs / "changed", {"seed": 1}, changed)
    text = told(capsys, runs / "old-seed1", runs / "changed", "--policy=teacher")
    assert (
        "warning: measured under different conditions, old-seed1 and changed: numpy 2.4.6 against 2.3" in text
    )


def test_bonferroni_widens_every_interval(runs: Path, capsys: Capture) -> None:
    names = [runs / name for name in ("old-seed1", "new-seed1", "new-seed2")]
    plain = json.loads(told(capsys, *names, "--policy=student", "--json"))
    wide = json.loads(told(capsys, *names, "--policy=student", "--json", "--bonferroni"))
    assert wide["confidence"] == pytest.approx(0.975)
    for before, after in zip(plain["comparisons"], wide["comparisons"], strict=True):
        assert after["score"]["low"] < before["score"]["low"]
        assert after["score"]["value"] == before["score"]["value"]


def test_a_folder_of_result_files_is_as_good_as_its_files(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "ev1.5"
    for one in (result("expert", 16, 400.0), result("random", 4, 100.0)):
        write_result(folder / f"{one.policy.label}-0-test20-seed0.json", one)
    assert "random against expert" in told(capsys, folder)
    write_result(tmp_path / "ev2" / "random.json", result("random", 2, 150.0, "another"))
    assert "ev2 against ev1.5" in told(capsys, folder, tmp_path / "ev2", "--policy", "random")
    write_result(folder / "random-0-test50-seed0.json", result("random", 3, 150.0, "third"))
    assert "two results of random" in (answer := refused(capsys, folder)) and "name a file" in answer


def test_a_report_of_a_folder_of_result_files_points_to_compare(tmp_path: Path, capsys: Capture) -> None:
    write_result(tmp_path / "expert.json", result("expert", 16, 400.0))
    assert main(["report", str(tmp_path)]) == 2
    assert f"mtrl compare {tmp_path}" in capsys.readouterr().err


def test_paths_with_the_signs_of_groups_and_labels(runs: Path, capsys: Capture) -> None:
    for seed in (1, 2):
        (runs / f"new-seed{seed}").rename(runs / f"lr=0.1,at@home,seed{seed}")
    first, second = (f"{runs}/lr=0.1,at@home,seed{seed}" for seed in (1, 2))
    old = f"old={runs}/old-seed1,{runs}/old-seed2"
    assert main(["compare", old, f"new={first},{second}", "--policy", "student"]) == 0
    assert main(["compare", f"student@{first}", f"mine=student@{second}"]) == 0
    capsys.readouterr()
