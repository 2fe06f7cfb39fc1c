"""`mtrl train agent=world_model`: the whole command on a tiny budget, resuming, workers, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import Env, register, spaces
from numpy.typing import NDArray

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
DEMONSTRATED = ("tasks=[point/obstacle]", "agent.replay.demonstrations=0.5", "demonstrations.episodes=2")
CLONING = ("agent.planning.collect=mixed", "agent.losses.cloning=1")
DISTILLED = (
    "stages=[train,distill]",
    "distillation.method=dagger",
    "distillation.steps=400",
    "distillation.updates=20",
    "distillation.batch_size=16",
    "distillation.network.width=16",
)


class Pairs(Env[NDArray[np.float32], NDArray[np.int64]]):
    """Acts by two numbers at once."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.MultiDiscrete([2, 3])


register("made-pairs-v0", entry_point=Pairs)


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


@pytest.mark.slow
def test_a_run_with_demonstrations_resumes_to_the_same_metrics(tmp_path: Path) -> None:
    words = (*CLONING, *DEMONSTRATED, "stages=[train]")
    assert train(tmp_path, "whole", *words) == 0
    assert train(tmp_path, "parts", *words, "training.minutes=1e-7") == 0
    assert Checkpoints(tmp_path / "parts").steps()[-1] < 400
    assert train(tmp_path, "parts", *words, "--resume", "auto") == 0
    whole, parts = (tmp_path / name / "metrics.jsonl" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_a_run_of_another_size_is_not_continued(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*CLONING, "stages=[train,evaluate,report]", "agent.size=S", "--resume", "auto")
    assert train(finished.parent, "whole", *words) == 2
    assert "agent.size" in capsys.readouterr().err


def test_two_workers_imitate_plans_and_demonstrations_and_follow_a_student(tmp_path: Path) -> None:
    words = ("runtime.workers=2", "gradients=pcgrad", *CLONING, *DEMONSTRATED, *DISTILLED)
    assert train(tmp_path, "workers", *words) == 0
    assert read_jsonl(tmp_path / "workers" / "metrics.jsonl")[-1]["updates"] == 10
    assert read_jsonl(tmp_path / "workers" / "student" / "metrics.jsonl")[-1]["updates"] == 20
    assert (tmp_path / "workers" / "demonstrations").is_dir()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("agent.size=huge", "agent.size"),
        ("agent.planning.collect=always", "agent.planning.collect"),
        ("agent.experts.chosen=1", "chosen=1 gives the gate no gradient"),
        ("agent.horizon=3", "agent.horizon"),
        ("collection.plan=false", "collection.plan"),
        ("tasks=[gym/made-pairs-v0]", "gym/made-pairs-v0 acts by MultiDiscrete([2 3])"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "wrong", word) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "wrong").exists()
