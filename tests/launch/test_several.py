"""Several runs: one for each seed with one table, their list, and what is refused before anything starts."""

import json
import os
import sys
from pathlib import Path

import pytest

from mtrl.launch.main import main
from mtrl.training import own_run

Capture = pytest.CaptureFixture[str]

SMALL = [
    "train",
    "agent=sac",
    "tasks=point/obstacle",
    "agent.network.torso.width=16",
    "agent.network.torso.depth=1",
    "agent.network.bins=11",
    "agent.batch_size=8",
    "collection.copies=2",
    "steps=256",
    "online.warmup=200",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]


def test_a_list_of_seeds_ends_in_one_table_and_is_listed(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SMALL, "seeds=1,2", f"output={tmp_path}", "name=mine"]
    monkeypatch.setattr(sys, "argv", ["mtrl", *words])
    figures = tmp_path / "figures.json"
    assert main([*words, "--json", str(figures)]) == 0
    shown = capsys.readouterr().out
    assert "2 runs a group" in shown
    # a line a run, one table of all
    assert [f"mine-seed{seed}: sac success" in shown for seed in (1, 2)] == [True, True]
    assert shown.count("point/obstacle") == shown.count("brackets") == 1, shown
    record = json.loads(figures.read_text())
    assert [Path(run["run"]).name for run in record["runs"]] == ["mine-seed1", "mine-seed2"]
    (group,) = record["comparison"]["groups"]
    assert group["runs"] == 2
    shown = [run["teacher_success"] for run in record["runs"]]
    assert [policy["success"] for policy in group["policies"]] == shown

    assert main(words) == 2
    assert "mine-seed1" in capsys.readouterr().err
    assert main(["deploy", str(tmp_path / "mine-seed1")]) == 2
    assert f"mtrl export {tmp_path / 'mine-seed1'}" in capsys.readouterr().err
    # a run that stopped: nothing but its configuration
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "config.yaml").write_text((tmp_path / "mine-seed1" / "config.yaml").read_text())
    assert main(["runs", str(tmp_path), "--json", str(tmp_path / "runs.json")]) == 0
    listed = {Path(run["run"]).name: run for run in json.loads((tmp_path / "runs.json").read_text())}
    assert {name: run["state"] for name, run in listed.items()} == {
        "mine-seed1": "finished",
        "mine-seed2": "finished",
        "stopped": "stopped",
    }
    assert listed["mine-seed1"]["step"] == 256 and "seeds=1,2" in listed["mine-seed1"]["resume"]
    assert listed["mine-seed1"]["resume"].endswith("--resume auto")
    first = listed["mine-seed1"]
    assert (first["agent"], first["tasks"], first["seed"]) == ("sac", ["point/obstacle"], 1)
    capsys.readouterr()
    with own_run(tmp_path / "mine-seed1"):
        assert main(["runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "sac_success" in shown and "sac, seed 2, on point/obstacle" in shown
    assert f"process {os.getpid()}" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seeds=1"], "two or more different seeds"),
        (["seeds=1,1"], "two or more different seeds"),
        (["seeds=1,two"], "two or more different seeds"),
        (["seeds=1,2", "seed=3"], "contradict each other"),
        (["agent=dqn"], "agent=sb3 agent.algorithm=dqn"),
        (["device=cuda:99"], "choose agent.device=cpu"),
    ],
)
def test_refused_before_anything_is_made(
    words: list[str], said: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([*SMALL[:1], "agent=sac", "tasks=point/obstacle", f"output={tmp_path / 'runs'}", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_where_nothing_has_run_yet_the_list_is_empty_and_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "--json", "runs.json"]) == 0
    assert "begin one with: mtrl train" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs.json").read_text()) == []
    assert main(["runs", "elsewhere"]) == 2
