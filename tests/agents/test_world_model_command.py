"""`mtrl train agent=world_model`: the whole command on a tiny budget, resuming, workers, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtrl.agents.world_model import AGENT
from mtrl.launch.main import main
from mtrl.training import EPISODE_METRICS, RUN_METRICS, Checkpoints, read_jsonl, undocumented

SMALL = [
    "agent=world_model",
    "tasks=[point/obstacle,gym/CartPole-v1]",
    "agent.batch_size=8",
    "agent.planning.samples=8",
    "agent.planning.policy_samples=2",
    "agent.planning.elites=4",
    "agent.planning.iterations=1",
    "agent.diagnostics_every=10",
    "collection.copies=2",
    "collection.steps=10",
    "collection.stagger=false",
    "steps=400",
    "online.warmup=200",
    "online.log_every=100",
    "online.checkpoint_every=300",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]
CLONING = ("agent.planning.collect=mixed", "agent.losses.cloning=1")


def train(place: Path, name: str, *words: str) -> int:
    return main(["train", *SMALL, f"output={place}", f"name={name}", *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    assert train(place, "whole", *CLONING, "stages=[train,evaluate,report]") == 0
    return place / "whole"


def test_a_mixed_run_trains_is_evaluated_and_reported(finished: Path) -> None:
    rows = read_jsonl(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == [100, 200, 300, 400]
    assert rows[-1]["updates"] == 10
    assert {"q_loss/point/obstacle", "q_loss/gym/CartPole-v1", "planning_gain/gym/CartPole-v1"} <= set(
        rows[-1]
    )
    assert not undocumented(rows[-1], AGENT.metrics, EPISODE_METRICS, RUN_METRICS)
    (result,) = (finished / "evaluations").glob("teacher-*.json")
    tasks = {episode["task"] for episode in json.loads(result.read_text())["episodes"]}
    assert tasks == {"point/obstacle", "gym/CartPole-v1"}
    assert (finished / "report.html").exists()


def test_a_stopped_run_resumes_to_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    first = (*CLONING, "stages=[train]", "training.minutes=1e-7")
    assert train(tmp_path, "parts", *first) == 0
    assert Checkpoints(tmp_path / "parts").steps()[-1] < 400
    assert train(tmp_path, "parts", *CLONING, "stages=[train]", "--resume", "auto") == 0
    parts = (tmp_path / "parts" / "metrics.jsonl").read_bytes()
    assert parts == (finished / "metrics.jsonl").read_bytes()


def test_two_workers_learn_too(tmp_path: Path) -> None:
    assert train(tmp_path, "workers", "runtime.workers=2", "stages=[train]", "gradients=pcgrad") == 0
    assert read_jsonl(tmp_path / "workers" / "metrics.jsonl")[-1]["updates"] == 10


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("agent.size=huge", "agent.size"),
        ("agent.planning.collect=always", "agent.planning.collect"),
        ("agent.experts.chosen=1", "chosen=1 gives the gate no gradient"),
        ("agent.horizon=3", "agent.horizon"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "wrong", word) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
