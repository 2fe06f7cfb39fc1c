"""The command line with an agent that collects while it learns: a mixed run, resuming, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mtrl.errors import DivergenceError
from mtrl.launch.main import main
from mtrl.training import Checkpoints, read_jsonl

Capture = pytest.CaptureFixture[str]

SMALL = [
    "agent=sac",
    "tasks=[point/obstacle,gym/CartPole-v1]",
    "agent.network.width=16",
    "agent.network.layers=1",
    "agent.network.bins=11",
    "agent.batch_size=8",
    "collection.copies=2",
    "collection.steps=10",
    "steps=600",
    "online.warmup=200",
    "online.log_every=100",
    "online.checkpoint_every=300",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]


def train(place: Path, name: str, *words: str) -> int:
    return main(["train", *SMALL, f"output={place}", f"name={name}", *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the default stages: nothing is collected beforehand, the policy is evaluated."""
    place = tmp_path_factory.mktemp("runs")
    assert train(place, "whole") == 0
    return place / "whole"


def test_a_mixed_run_trains_and_is_evaluated(finished: Path) -> None:
    assert not (finished / "demonstrations").exists()
    rows = read_jsonl(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == [100, 200, 300, 400, 500, 600]
    # from step 200 on, at 0.2 updates a step
    assert [row["updates"] for row in rows] == [0, 0, 20, 40, 60, 80]
    assert {"critic_loss/point/obstacle", "critic_loss/gym/CartPole-v1"} <= set(rows[-1])
    (result,) = (finished / "evaluations").glob("teacher-*.json")
    judged = json.loads(result.read_text())
    assert {episode["task"] for episode in judged["episodes"]} == {"point/obstacle", "gym/CartPole-v1"}
    assert Checkpoints(finished).steps() == [300, 600]


def test_a_run_stopped_by_the_clock_resumes_to_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    # a ceiling that is over at once stops after every fragment; the last session has none
    for session in range(4):
        resume = ["--resume", "auto"] if session else []
        assert train(tmp_path, "parts", "training.minutes=0.00001", *resume) == 130
    assert Checkpoints(tmp_path / "parts").steps()[-1] == 80
    config = (tmp_path / "parts" / "config.yaml").read_text()
    (tmp_path / "parts" / "config.yaml").write_text(config.replace("minutes: 1.0e-05", "minutes: 0.0"))
    assert train(tmp_path, "parts", "--resume", "auto") == 0
    assert (tmp_path / "parts" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_the_needs_are_said_before_the_run(tmp_path: Path, capsys: Capture) -> None:
    assert train(tmp_path, "told", "agent.replay.capacity=1000000", "stages=[evaluate]") == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "2 tasks, no training" in said
    assert train(tmp_path, "told", "agent.replay.capacity=1000000", "steps=20", "--overwrite") == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search(r"20 environment steps, a replay of up to \d+ MB in memory", said)


def test_evaluating_while_learning_is_logged(tmp_path: Path) -> None:
    assert train(tmp_path, "judged", "online.evaluate_every=300", "steps=300", "stages=[train]") == 0
    row = read_jsonl(tmp_path / "judged" / "metrics.jsonl")[-1]
    assert {"evaluation_return/gym/CartPole-v1", "evaluation_success/point/obstacle"} <= set(row)


@pytest.mark.parametrize(("stage", "word"), [("clone", "cloned twin"), ("distill", "chunk teacher")])
def test_stages_that_the_agent_has_not_are_refused_at_once(
    stage: str, word: str, tmp_path: Path, capsys: Capture
) -> None:
    assert train(tmp_path, "no", f"stages=[train,{stage}]") == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_capacity_below_the_batch_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert train(tmp_path, "no", "agent.replay.capacity=7") == 2
    assert "capacity=7 is below agent.batch_size=8" in capsys.readouterr().err


def test_a_run_that_diverges_keeps_its_last_checkpoint(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtrl.agents.sac import SACAgent

    ordinary = SACAgent.ingest

    def broken(self: SACAgent, data: object) -> None:
        if self.updates > 30:
            raise DivergenceError("task gym/CartPole-v1", self.updates, "reward holds nan")
        ordinary(self, data)

    monkeypatch.setattr(SACAgent, "ingest", broken)
    assert train(tmp_path, "broken") == 2
    said = capsys.readouterr().err
    assert "task gym/CartPole-v1 diverged" in said
    assert "Traceback" not in said
    assert Checkpoints(tmp_path / "broken").steps() == [300]


def test_worker_processes_feed_the_same_loop(tmp_path: Path) -> None:
    assert train(tmp_path, "workers", "runtime.workers=2", "stages=[train]") == 0
    assert read_jsonl(tmp_path / "workers" / "metrics.jsonl")[-1]["updates"] == 80
