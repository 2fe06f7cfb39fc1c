"""The command line with an agent that collects while it learns: a mixed run, resuming, what is refused."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mtrl.agents.sac import SACAgent
from mtrl.errors import DivergenceError
from mtrl.launch.main import main
from mtrl.rollout import Fragment
from mtrl.training import Checkpoints, read_jsonl
from mtrl.training.progress_display import Progress

from ..synthetic import CounterEnvironment, counter_suite

Capture = pytest.CaptureFixture[str]

SMALL = [
    "agent=sac",
    "tasks=[point/obstacle,gym/CartPole-v1]",
    "agent.network.torso.width=16",
    "agent.network.torso.depth=1",
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


def test_a_run_that_began_from_a_parent_continues_at_a_later_stage(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    parent = f"init_from={finished}"
    assert train(tmp_path, "child", parent, "stages=[evaluate]") == 2
    assert "takes no init_from in these stages" in capsys.readouterr().err
    assert train(tmp_path, "child", parent, "stages=[train]") == 0
    assert train(tmp_path, "child", parent, "stages=[evaluate]", "--resume", "auto") == 0
    assert list((tmp_path / "child" / "evaluations").glob("teacher-*.json"))


def test_a_run_stopped_by_the_clock_resumes_to_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    # a ceiling that is over at once stops after one fragment; the last session has none
    parts = tmp_path / "parts"
    for session in range(4):
        resume = ["--resume", "auto"] if session else []
        ceiling = f"training.minutes={(session + 1) * 1e-7:.7f}"
        assert train(tmp_path, "parts", ceiling, "stages=[train]", *resume) == 0
    assert Checkpoints(parts).steps()[-1] == 80
    assert train(tmp_path, "parts", "--resume", "auto", "stages=[train]") == 0
    assert (parts / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    # what is finished is not trained again, whatever the ceiling
    assert train(tmp_path, "parts", "training.minutes=5", "stages=[train]", "--resume", "auto") == 0
    assert Checkpoints(parts).steps()[-1] == 600


def test_a_run_that_reaches_its_ceiling_is_judged_and_can_be_trained_further(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "short"
    monkeypatch.setattr(sys, "argv", ["mtrl", "train", "agent=sac", "training.minutes=1e-6"])
    assert train(tmp_path, "short", "training.minutes=1e-6") == 0
    said = capsys.readouterr().out
    assert "sac, 20 of 600 steps, 0 updates: the budget of 1e-06 minutes was used up" in said
    assert "mtrl train agent=sac training.minutes=2e-06 --resume auto" in said
    assert [file.name for file in run.glob("evaluations/*.json")] == ["teacher-0.json"]
    # the same ceiling again has nothing to add
    assert train(tmp_path, "short", "training.minutes=1e-6", "--resume", "auto") == 0
    assert Checkpoints(run).steps() == [20]
    # minutes are those of all sessions together
    assert json.loads((run / "training_time.json").read_text())["seconds"] > 6e-5
    (run / "artefact").mkdir()
    ordinary = SACAgent.ingest

    def interrupted(self: SACAgent, data: Fragment) -> None:
        signal.raise_signal(signal.SIGINT)
        ordinary(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(SACAgent, "ingest", interrupted)
        assert train(tmp_path, "short", "training.minutes=60", "--resume", "auto") == 130
    assert Checkpoints(run).steps()[-1] == 40
    said = capsys.readouterr().out
    assert "what was exported of it stays as before" in said and f"mtrl export {run} --overwrite" in said
    # the policy of the first ceiling is there already, but what was begun since is not given up for it
    assert train(tmp_path, "short", "training.minutes=60", "--resume", "auto") == 0
    assert Checkpoints(run).steps()[-1] == 600
    assert (run / "evaluations" / "teacher-80.json").exists()
    assert "minutes: 60" in (run / "config.yaml").read_text()


def test_the_needs_are_said_before_the_run(tmp_path: Path, capsys: Capture) -> None:
    assert train(tmp_path, "told", "agent.replay.capacity=1000000", "stages=[evaluate]") == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "2 tasks, no training" in said
    assert train(tmp_path, "told", "agent.replay.capacity=1000000", "steps=220", "--overwrite") == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert re.search(r"220 environment steps, a replay of up to \d+ MB in memory", said)


def test_evaluating_while_learning_is_logged(tmp_path: Path) -> None:
    assert train(tmp_path, "judged", "online.evaluate_every=300", "steps=300", "stages=[train]") == 0
    row = read_jsonl(tmp_path / "judged" / "metrics.jsonl")[-1]
    assert {"evaluation_return/gym/CartPole-v1", "evaluation_success/point/obstacle"} <= set(row)


@pytest.mark.parametrize(
    ("stage", "word"),
    [("clone", "behaviour-cloning counterpart"), ("distill", "Distil with distillation.method=dagger")],
)
def test_stages_that_the_agent_has_not_are_refused_at_once(
    stage: str, word: str, tmp_path: Path, capsys: Capture
) -> None:
    assert train(tmp_path, "no", f"stages=[train,{stage}]", "distillation.method=same_noise") == 2
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
    printed = capsys.readouterr()
    said = printed.err
    assert "sac at step 300" in printed.out
    assert re.search(r"or leave out.*\n.* agent.on_non_finite=skip --resume auto", printed.out)
    assert "task gym/CartPole-v1 diverged" in said
    assert "Traceback" not in said
    run = tmp_path / "broken"
    assert Checkpoints(run).steps() == [300]


def test_an_environment_that_goes_nan_is_named_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mtrl", "train", "agent=sac", "name=broken"])
    words = ["tasks=counter/short", "steps=400", "online.warmup=100", "online.checkpoint_every=100"]
    step, broken, steps = CounterEnvironment.step, [True], [0]

    def going_bad(self: CounterEnvironment, *given: Any) -> tuple[float, bool, bool]:
        steps[0] += 1
        reward, terminated, success = step(self, *given)
        return (float("nan") if broken[0] and steps[0] > 250 else reward), terminated, success

    monkeypatch.setattr(CounterEnvironment, "step", going_bad)
    with counter_suite():
        assert train(tmp_path, "broken", *words, "stages=[train]") == 2
        said = capsys.readouterr()
        assert "every task is in quarantine after 240 steps: counter/short" in said.err
        assert re.search(r"failed at step, decision \d+ of copy \d.*not finite: 'reward'", said.err)
        assert "newest checkpoint of: sac at step 200" in said.out
        assert "mtrl train agent=sac name=broken --resume auto" in said.out
        assert Checkpoints(tmp_path / "broken").steps() == [100, 200]
        broken[0] = False
        assert train(tmp_path, "broken", *words, "stages=[train]", "--resume", "auto") == 0
        assert Checkpoints(tmp_path / "broken").steps()[-1] == 400


def test_the_bar_of_a_resumed_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path, "bar", "steps=240", "training.minutes=1e-7", "stages=[train]") == 0
    (reached,) = Checkpoints(tmp_path / "bar").steps()
    shown: list[int] = []
    monkeypatch.setattr(Progress, "close", lambda bar: shown.append(bar.done))
    advance = Progress.advance

    def seen(bar: Progress, *words: int, **fields: float) -> None:
        advance(bar, *words, **fields)
        shown.append(bar.done)

    monkeypatch.setattr(Progress, "advance", seen)
    again = ["steps=240", "training.minutes=5", "--resume", "auto"]
    assert train(tmp_path, "bar", *again, "stages=[train]") == 0
    assert shown == [*range(reached + 20, 241, 20), 240]


def test_steps_of_random_play_alone_are_refused(tmp_path: Path, capsys: Capture) -> None:
    assert train(tmp_path, "no", "steps=200") == 2
    assert "online.steps=200 is not above online.warmup=200" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_surgery_of_one_task_says_that_there_is_nothing_to_weigh(tmp_path: Path, capsys: Capture) -> None:
    words = ["tasks=point/obstacle", "gradients=pcgrad", "steps=220", "stages=[train]"]
    assert train(tmp_path, "alone", *words) == 0
    said = capsys.readouterr().err
    assert "gradients=pcgrad: one task has nothing to be weighed against" in said
    assert "alone: 1 task, 220 environment steps" in said


def test_conflict_and_shares_are_recorded(tmp_path: Path) -> None:
    words = ["gradients=pcgrad", "sampling.kind=worst_task", "sampling.updates=true", "steps=300"]
    assert train(tmp_path, "both", *words, "stages=[train]") == 0
    rows = read_jsonl(tmp_path / "both" / "cosines.jsonl")
    assert {row["step"] for row in rows} == {300}
    assert {row["part"] for row in rows} == {"critic"}
    assert rows[0]["tasks"] == ["point/obstacle", "gym/CartPole-v1"]
    shares = read_jsonl(tmp_path / "both" / "metrics.jsonl")[-1]
    assert shares["share/point/obstacle"] + shares["share/gym/CartPole-v1"] == pytest.approx(1.0)


def test_shares_are_refused_for_an_agent_that_does_not_collect(tmp_path: Path, capsys: Capture) -> None:
    words = ["agent=diffusion", "tasks=point/obstacle", "sampling.kind=worst_task", f"output={tmp_path}"]
    assert main(["train", *words]) == 2
    assert "sampling.kind=worst_task is for agents that collect while they learn" in capsys.readouterr().err


def test_worker_processes_feed_the_same_loop(tmp_path: Path) -> None:
    assert train(tmp_path, "workers", "runtime.workers=2", "stages=[train]") == 0
    assert read_jsonl(tmp_path / "workers" / "metrics.jsonl")[-1]["updates"] == 80


def test_a_finished_run_is_extended_to_the_metrics_of_a_longer_one(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert train(tmp_path, "long", "steps=400") == 0
    run = tmp_path / "long"
    # the fixture's own budget
    assert train(tmp_path, "long", "steps=600", "--resume", "auto") == 0
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert {file.name for file in run.glob("evaluations/*.json")} == {"teacher-40.json", "teacher-80.json"}
    assert "steps: 600" in (run / "config.yaml").read_text()
    capsys.readouterr()
    assert train(tmp_path, "long", "steps=500", "--resume", "auto") == 2
    said = capsys.readouterr().err
    assert "online.steps=500 is below the 600 that this run has" in said
    assert "steps: 600" in (run / "config.yaml").read_text()
    (run / "checkpoints").rename(run / "elsewhere")
    assert train(tmp_path, "long", "steps=900", "--resume", "auto") == 2
    assert f"init_from={run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("agent", "budget"),
    [
        (["agent=diffusion", "tasks=point/obstacle", "demonstrations.episodes=2"], "updates"),
        (["agent=sb3", "tasks=point/obstacle", "agent.ppo.n_steps=10", "agent.ppo.batch_size=10"], "steps"),
    ],
)
def test_offline_agents_and_baselines_are_extended_too(tmp_path: Path, agent: list[str], budget: str) -> None:
    words = [
        "train",
        *agent,
        f"output={tmp_path}",
        "name=run",
        "stages=[collect,train]",
        "training.threads=1",
    ]
    more = ["online.warmup=0", "tracking.tensorboard=false"]
    assert main([*words, *more, f"{budget}=20"]) == 0
    first = Checkpoints(tmp_path / "run").steps()[-1]
    assert main([*words, *more, f"{budget}={2 * first + 1}", "--resume", "auto"]) == 0
    assert Checkpoints(tmp_path / "run").steps()[-1] > 2 * first
