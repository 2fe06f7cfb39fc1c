"""`mtrl train agent=grpo`: the whole command on a tiny budget, resuming, workers, parents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtrl.agents.grpo import AGENT
from mtrl.launch.main import main
from mtrl.training import EPISODE_METRICS, RUN_METRICS, Checkpoints, read_jsonl, undocumented

SMALL = [
    "agent=grpo",
    "agent.network.torso.width=16",
    "agent.groups=4",
    "agent.group_size=3",
    "agent.epochs=2",
    "agent.minibatches=2",
    "steps=900",
    "online.log_every=200",
    "online.checkpoint_every=300",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking.tensorboard=false",
]
CLONED = [
    "tasks=[point/obstacle]",
    "agent.cloning.updates=30",
    "agent.network.correlation=0.5",
    "demonstrations.episodes=2",
    "training.log_every=10",
]


def train(place: Path, name: str, *words: str) -> int:
    return main(["train", *SMALL, f"output={place}", f"name={name}", *words])


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    assert train(place, "whole", *CLONED, "stages=[collect,train,evaluate]") == 0
    return place / "whole"


def test_a_clone_trains_and_is_evaluated(cloned: Path) -> None:
    rows = read_jsonl(cloned / "metrics.jsonl")
    assert rows[-1]["updates"] > 30 and rows[-1]["step"] >= 900
    names = {name for row in rows for name in row}
    assert {
        "cloning_loss",
        "useful_groups/point/obstacle",
        "score/point/obstacle",
        "std/point/obstacle",
    } <= names
    assert not undocumented(names, AGENT.metrics, EPISODE_METRICS, RUN_METRICS)
    (result,) = (cloned / "evaluations").glob("teacher-*.json")
    assert len(json.loads(result.read_text())["episodes"]) == 2


def test_a_stopped_run_resumes_to_the_same_metrics(cloned: Path, tmp_path: Path) -> None:
    words = (*CLONED, f"data={cloned / 'demonstrations'}", "stages=[train]")
    assert train(tmp_path, "whole", *words) == 0
    assert train(tmp_path, "parts", *words, "training.minutes=1e-7") == 0
    assert Checkpoints(tmp_path / "parts").steps()[-1] < 900
    assert train(tmp_path, "parts", *words, "--resume", "auto") == 0
    parts = (tmp_path / "parts" / "metrics.jsonl").read_bytes()
    assert parts == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_mixed_tasks_learn_on_workers_with_weights(tmp_path: Path) -> None:
    words = (
        "tasks=[point/obstacle,dmc/cartpole-balance]",
        "tasks.options.dmc.action_repeat=20",
        "runtime.workers=2",
        "agent.sampler.kind=weights",
        "agent.sampler.filter=true",
        "agent.sampler.oversampling=1.5",
        "stages=[train]",
    )
    assert train(tmp_path, "mixed", *words) == 0
    rows = read_jsonl(tmp_path / "mixed" / "metrics.jsonl")
    found = next(row for row in rows if "weight/point/obstacle" in row)
    assert found["weight/point/obstacle"] + found["weight/dmc/cartpole-balance"] == pytest.approx(1.0)


def test_another_run_is_the_parent_and_the_reference(cloned: Path, tmp_path: Path) -> None:
    words = (
        "tasks=[point/obstacle]", f"init_from={cloned}", f"reference={cloned}", "agent.regularisation.kl=0.1",
        "stages=[train]", "steps=200",
    )  # fmt: skip
    assert train(tmp_path, "child", *words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("agent.group_size=1",), "agent.group_size=1"),
        (("agent.returns.kind=score",), "agent.returns.kind"),
        (("tasks=[gym/CartPole-v1]", "agent.cloning.updates=10"), "gym/CartPole-v1 is discrete"),
        (
            ("tasks=[gym/CartPole-v1,point/obstacle]", "agent.advantage.scale=none"),
            "agent.advantage.scale=none adds up returns",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "wrong", "tasks=[gym/CartPole-v1]", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
