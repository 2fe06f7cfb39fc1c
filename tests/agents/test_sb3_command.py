"""`mtrl train agent=sb3`: the whole command on a tiny budget, its files, resuming, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.agents.sb3.baseline import RunReporter
from mtrl.launch.main import main
from mtrl.training import (
    EPISODE_METRICS,
    EVALUATION_METRICS,
    RUN_TIMINGS,
    Checkpoints,
    read_jsonl,
    undocumented,
)

Capture = pytest.CaptureFixture[str]

SMALL = [
    "agent=sb3",
    "agent.net_arch=[16]",
    "agent.ppo.n_steps=25",
    "agent.ppo.batch_size=25",
    "agent.ppo.n_epochs=2",
    "agent.dqn.learning_starts=20",
    "agent.dqn.buffer_size=500",
    "agent.sac.learning_starts=20",
    "agent.sac.buffer_size=500",
    "agent.sac.batch_size=8",
    "online.log_every=100",
    "online.checkpoint_every=200",
    "steps=400",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]
DISCRETE, CONTINUOUS = "tasks=[gym/CartPole-v1,gym/MountainCar-v0]", "tasks=[point/obstacle,maze2d/umaze]"


def train(place: Path, name: str, *words: str) -> int:
    return main(["train", *SMALL, f"output={place}", f"name={name}", *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    assert train(place, "whole", DISCRETE, "online.evaluate_every=200", "stages=[train,evaluate,report]") == 0
    return place / "whole"


def test_a_run_trains_is_judged_on_the_test_starts_and_reported(finished: Path) -> None:
    (result,) = (finished / "evaluations").glob("teacher-*.json")
    judged = json.loads(result.read_text())
    assert {episode["task"] for episode in judged["episodes"]} == {"gym/CartPole-v1", "gym/MountainCar-v0"}
    assert {episode["start"] % 3 for episode in judged["episodes"]} == {2}
    assert (finished / "report.html").exists()
    assert Checkpoints(finished).steps() == [200, 400]
    assert not list(finished.rglob("*.zip")) and not list(finished.rglob("*.pkl"))


def test_records_come_at_their_steps_under_documented_names(finished: Path) -> None:
    rows = read_jsonl(finished / "metrics.jsonl")
    assert sorted({row["step"] for row in rows}) == [100, 200, 300, 400]
    assert any("return/gym/CartPole-v1" in row for row in rows)
    assert sum("evaluation_return/gym/CartPole-v1" in row for row in rows) == 2
    declared = {**registry.load("agent", "sb3").metrics, **EPISODE_METRICS, **EVALUATION_METRICS}
    assert undocumented({name for row in rows for name in row}, declared) == []
    timings = {name for row in read_jsonl(finished / "timing.jsonl") for name in row}
    assert undocumented(timings, RUN_TIMINGS) == []


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[int]]:
    """A run of DQN that Ctrl-C stopped and that went on; what was printed and kept when it stopped."""
    place, words = tmp_path_factory.mktemp("runs"), [DISCRETE, "agent.algorithm=dqn", "stages=[train]"]
    ordinary = RunReporter._on_step

    def interrupted(self: RunReporter) -> bool:
        if self.num_timesteps == 60:
            signal.raise_signal(signal.SIGINT)
        return ordinary(self)

    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as printed:
        patched.setattr(RunReporter, "_on_step", interrupted)
        assert train(place, "parts", *words) == 130
    kept = Checkpoints(place / "parts").steps()
    assert train(place, "parts", *words, "--resume", "auto") == 0
    return place / "parts", re.sub(r"\s+", " ", printed.getvalue()), kept


def test_a_stopped_run_says_how_to_go_on_and_does(resumed: tuple[Path, str, list[int]]) -> None:
    run, said, kept = resumed
    assert "sb3 dqn stopped after 60 of 400 steps; go on with:" in said
    assert kept == [60]
    assert Checkpoints(run).steps()[-1] == 400
    assert read_jsonl(run / "metrics.jsonl")[-1]["step"] == 400


def test_every_declared_metric_is_logged_and_the_needs_are_said_before(
    finished: Path, resumed: tuple[Path, str, list[int]], tmp_path: Path, capsys: Capture
) -> None:
    words = [CONTINUOUS, "stages=[train]", "steps=100"]
    assert train(tmp_path, "ppo", *words) == 0
    assert train(tmp_path, "sac", *words, "agent.algorithm=sac", "agent.sac.buffer_size=1000000") == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search(r"100 environment steps, a replay of up to \d+ MB in memory", said)
    runs = [finished, resumed[0], tmp_path / "ppo", tmp_path / "sac"]
    seen = {name for run in runs for row in read_jsonl(run / "metrics.jsonl") for name in row}
    assert set(registry.load("agent", "sb3").metrics) <= seen


def test_a_ceiling_on_minutes_ends_the_training_and_the_run_goes_on(tmp_path: Path) -> None:
    assert train(tmp_path, "short", DISCRETE, "training.minutes=0.0000001", "evaluation.episodes=1") == 0
    # a ceiling that is over at once leaves one step of both environments
    assert Checkpoints(tmp_path / "short").steps() == [2]
    assert list((tmp_path / "short" / "evaluations").glob("teacher-*.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks=[point/obstacle,gym/CartPole-v1]"], "agent=sac"),
        ([CONTINUOUS, "agent.algorithm=dqn"], "agent.algorithm=sac"),
        ([DISCRETE, "agent.algorithm=pbo"], "did you mean 'ppo'"),
        ([DISCRETE, "agent.settings.clip_rang_vf=1"], "did you mean 'clip_range_vf'"),
        (
            [DISCRETE, "stages=[train,distill]", "distillation.method=same_noise"],
            "task gym/CartPole-v1 is discrete. Distil with distillation.method=dagger",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_exists(
    words: list[str], said: str, tmp_path: Path, capsys: Capture
) -> None:
    assert train(tmp_path, "no", *words) == 2
    assert said in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "no").exists()
