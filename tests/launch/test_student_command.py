"""A planner of continuous and discrete actions goes to the robot as a student, through the commands."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from mtrl.deployment import latency_apart, read_flight, verify
from mtrl.launch.main import main

Capture = pytest.CaptureFixture[str]
TASKS = ("point/obstacle", "gym/CartPole-v1")
SMALL = [
    "agent=world_model",
    f"tasks=[{','.join(TASKS)}]",
    "agent.batch_size=8",
    "agent.planning.samples=8",
    "agent.planning.policy_samples=2",
    "agent.planning.elites=4",
    "agent.planning.iterations=1",
    "collection.copies=2",
    "collection.steps=10",
    "steps=100",
    "online.warmup=60",
    "online.log_every=100",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]
DISTILLED = [
    "steps=240",
    "updates=48",
    "distillation.round=10",
    "distillation.network.width=16",
    "distillation.network.blocks=1",
]
PATIENT = ("robot.stale_limit_ms=1000", "robot.inference_deadline_ms=1000", "robot.command_timeout_ms=1000")
"""For a machine that is busy with other things too."""


def mtrl(*words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(list(words)) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose planner was distilled and exported."""
    place = tmp_path_factory.mktemp("runs")
    mtrl("train", *SMALL, "stages=[train]", f"output={place}", "name=whole")
    shutil.copytree(place / "whole", place / "parts")
    mtrl("distill", str(place / "whole"), *DISTILLED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtrl.pipeline.export_stage.latency_apart", partial(latency_apart, calls=50, repeats=1))
        mtrl("export", str(place / "whole"))
    return place / "whole"


def test_one_artefact_serves_both_kinds(distilled: Path, tmp_path: Path) -> None:
    artefact = distilled / "artefact"
    manifest = json.loads((artefact / "manifest.json").read_text())
    assert (manifest["action_size"], manifest["choices"]) == (4, 2)
    assert [(task["action_size"], task["choices"]) for task in manifest["tasks"]] == [(2, 0), (1, 2)]
    assert verify(artefact).golden_error <= 1e-5
    words = ["episodes=2", "evaluation.copies=2"]
    mtrl("evaluate", str(artefact), *words, "--out", str(tmp_path))
    mtrl("evaluate", str(distilled), "evaluation.random=false", *words)
    (file,) = tmp_path.glob("*.json")
    (own,) = (distilled / "evaluations").glob("student-*.json")
    exported, kept = (json.loads(path.read_text())["episodes"] for path in (file, own))
    assert [(one["task"], one["length"]) for one in exported] == [
        (one["task"], one["length"]) for one in kept
    ]


def test_it_flies_under_the_guard(distilled: Path, tmp_path: Path) -> None:
    words = [*PATIENT, "robot.settle_decisions=3", "--out", str(tmp_path)]
    said = mtrl("deploy", str(distilled / "artefact"), *words)
    assert "gym/CartPole-v1: return " in said and "of 1 episodes succeeded" in said
    for name in TASKS:
        stem = tmp_path / "deployments" / name.replace("/", "-")
        report = json.loads(stem.with_suffix(".json").read_text())
        assert report["log_complete"] and report["final_state"] == "RUN" and report["decisions"] > 0
    flight = read_flight(stem.with_suffix(".mcap"))
    assert flight.guard.choices == 2
    assert set(flight.command.ravel()) <= {0.0, 1.0} and (flight.command == flight.proposal).all()


def test_a_stopped_distillation_resumes_to_the_same_student(distilled: Path) -> None:
    parts = str(distilled.parent / "parts")
    mtrl("distill", parts, *DISTILLED, "training.minutes=1e-7")
    mtrl("distill", parts, *DISTILLED, "--resume", "auto")
    for file in ("student/metrics.jsonl", "policies/student/manifest.sha256"):
        assert (Path(parts) / file).read_bytes() == (distilled / file).read_bytes()


def test_a_planner_is_not_exported_without_a_student(
    distilled: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "bare"
    shutil.copytree(distilled, run)
    shutil.rmtree(run / "policies" / "student")
    shutil.rmtree(run / "artefact")
    assert main(["export", str(run)]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "agent 'world_model' does not offer its policy" in said and f"mtrl distill {run}" in said
    assert not (run / "artefact").exists()


def test_an_artefact_is_evaluated_as_its_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAC on a continuous and a discrete task, exported as it is: the same starts, the same returns."""
    short = partial(latency_apart, calls=50, repeats=1)
    monkeypatch.setattr("mtrl.pipeline.export_stage.latency_apart", short)
    words = [word for word in SMALL[1:] if not word.startswith("agent.planning")]
    mtrl("train", "agent=sac", *words, "stages=[train,export]", f"output={tmp_path}", "name=sac")
    run, places = tmp_path / "sac", (tmp_path / "own", tmp_path / "exported")
    for what, place in zip((run, run / "artefact"), places, strict=True):
        mtrl("evaluate", str(what), "evaluation.episodes=2", "--out", str(place))
    own, exported = (
        {
            (one["task"], one["start"]): one["episode_return"]
            for one in json.loads(next(place.glob("*.json")).read_text())["episodes"]
        }
        for place in places
    )
    assert len(own) == 4
    assert exported == pytest.approx(own, rel=1e-4)
