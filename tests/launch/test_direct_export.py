"""A policy that is one forward pass goes to the robot without a student, through the commands."""

from __future__ import annotations

import contextlib
import io
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import latency_apart
from mtrl.launch.main import main

Capture = pytest.CaptureFixture[str]

SMALL = [
    "agent=sac",
    "agent.network.torso.width=16",
    "agent.network.torso.depth=1",
    "agent.network.bins=11",
    "agent.batch_size=8",
    "collection.copies=2",
    "collection.steps=10",
    "steps=60",
    "online.warmup=40",
    "training.threads=1",
    "evaluation.episodes=3",
    "evaluation.copies=3",
    "tracking.tensorboard=false",
    "robot.settle_decisions=3",
    # a machine that is busy with other things too
    "robot.stale_limit_ms=1000",
    "robot.inference_deadline_ms=1000",
    "robot.command_timeout_ms=1000",
]


def mtrl(*words: str) -> int:
    return main(list(words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of the point task from training to one real-time episode, and what it printed."""
    place = tmp_path_factory.mktemp("runs")
    stages = "stages=[train,evaluate,export,deploy,report]"
    words = [*SMALL, "tasks=point/obstacle", f"output={place}", "name=direct", stages]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("mtrl.pipeline.export_stage.latency_apart", partial(latency_apart, calls=50, repeats=1))
        patch.setattr("mtrl.pipeline.evaluation_stages.record_drawn_tasks", lambda *_: None)
        assert mtrl("train", *words) == 0
    return place / "direct", re.sub(r"\s+", " ", printed.getvalue())


def test_the_teacher_is_exported_and_deployed_and_the_output_says_why(finished: tuple[Path, str]) -> None:
    run, printed = finished
    assert "exporting sac: the run has no student, and a policy of agent 'sac' is one" in printed
    manifest = json.loads((run / "artefact" / "manifest.json").read_text())
    shape = {key: manifest[key] for key in ("history", "chunk", "execute", "noise_size")}
    assert shape == {"history": 1, "chunk": 1, "execute": 1, "noise_size": 0}
    (deployed,) = (run / "deployments").glob("*.json")
    assert json.loads(deployed.read_text())["task"] == "point/obstacle"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["realtime_episodes"] == 1 and "teacher_latency_us_p50" in summary
    assert (run / "report.html").exists()


def test_the_artefact_acts_like_the_policy_on_the_same_starts(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    run, _ = finished
    words = ["episodes=3", "evaluation.copies=3", "--out", str(tmp_path)]
    assert mtrl("evaluate", str(run / "artefact"), *words) == 0
    (file,) = tmp_path.glob("*.json")
    (own,) = (run / "evaluations").glob("teacher-*.json")
    deployed, taught = (json.loads(path.read_text())["episodes"] for path in (file, own))
    for theirs, ours in zip(deployed, taught, strict=True):
        assert (theirs["start"], theirs["length"]) == (ours["start"], ours["length"])
        np.testing.assert_allclose(theirs["episode_return"], ours["episode_return"], rtol=1e-4)
    success = json.loads((run / "artefact" / "manifest.json").read_text())["provenance"]["success"]
    assert success == np.mean([episode["success_any"] for episode in taught])


def test_tasks_that_need_a_student_are_named_before_anything_begins(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as of an agent of another package that offers continuous states alone
    monkeypatch.setattr("mtrl.agents.sac.SACFactory.controller_serves", ())
    tasks = "tasks=[point/obstacle,gym/CartPole-v1,gym/Acrobot-v1]"
    words = [*SMALL, tasks, f"output={tmp_path}", "name=never", "stages=[train,export]"]
    assert mtrl("train", *words) == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "for discrete tasks (gym/CartPole-v1, gym/Acrobot-v1), and there is no student; add the" in said
    assert not (tmp_path / "never").exists()


def test_an_agent_without_a_controller_is_refused_at_once(tmp_path: Path, capsys: Capture) -> None:
    words = ["tasks=point/obstacle", f"output={tmp_path}", "name=never", "stages=[collect,train,export]"]
    assert mtrl("train", *words) == 2
    assert "add the stage 'distill'" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "never").exists()


def test_the_artefact_for_a_robot_names_its_joints_and_entries(
    finished: tuple[Path, str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    monkeypatch.setattr(
        "mtrl.pipeline.export_stage.latency_apart", partial(latency_apart, calls=50, repeats=1)
    )
    before = (run / "artefact" / "manifest.sha256").read_bytes()
    unbound = tmp_path / "robot.yaml"
    unbound.write_text("joints: [{name: a, low: 0, high: 1, velocity: 1}]\ntasks: {}\n")
    words = ("export", str(run), "--overwrite", "robot=arm")
    assert mtrl(*words, f"robot.file={unbound}") == 2
    assert "binds no task point/obstacle" in capsys.readouterr().err
    assert (run / "artefact" / "manifest.sha256").read_bytes() == before, "refused before the old one goes"
    assert mtrl(*words) == 0
    manifest = json.loads((run / "artefact" / "manifest.json").read_text())
    assert [joint["name"] for joint in manifest["joints"]] == [f"joint{k}" for k in range(1, 8)] + ["gripper"]
    (entry,) = manifest["tasks"]
    assert entry["action"] == [
        {"term": "0.02 * tool.y", "unit": "m"},
        {"term": "-0.02 * tool.x", "unit": "m"},
    ]
    assert mtrl("inspect", str(run / "artefact")) == 0
    assert "0.02 * tool.y [m]" in re.sub(r"\s+", " ", capsys.readouterr().out)
