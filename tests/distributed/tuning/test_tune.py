"""Searches: the space, the ledger, what a trial reports, what is refused, and one search to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from mtrl.distributed import cluster
from mtrl.distributed.shared_storage import require_shared
from mtrl.distributed.tuning import Dimension, Ledger, dimension_of
from mtrl.distributed.tuning.trial import next_value
from mtrl.errors import ConfigError, ExistsError, MtrlError, UnknownNameError
from mtrl.launch.main import main
from mtrl.launch.tune import split_space

SAC = [
    "agent=sac",
    "tasks=point/obstacle",
    "online.warmup=500",
    "online.log_every=250",
    "evaluation.episodes=2",
]


def test_a_space_is_written_as_settings() -> None:
    plain, space = split_space(
        ["agent=sac", "agent.discount=choice(0.97, 0.99)", "a.b=choice([1,2],[3,4])", "c=log(1e-4,1e-2)"]
    )
    assert plain == ["agent=sac"]
    assert space == {
        "agent.discount": Dimension("choice", ("0.97", "0.99")),
        "a.b": Dimension("choice", ("[1,2]", "[3,4]")),
        "c": Dimension("log", low=1e-4, high=1e-2),
    }
    assert space["c"].ends == ("0.0001", "0.01")
    whole = dimension_of("d", "integer(2,5)")
    assert whole is not None
    assert (whole.word(2), whole.ends) == ("2", ("2", "5"))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("choise(1,2)", UnknownNameError, "choice"),
        ("choice(1)", ConfigError, "at least two different values"),
        ("choice(1,1)", ConfigError, "at least two different values"),
        ("uniform(1)", ConfigError, "expected two numbers"),
        ("uniform(a,b)", ConfigError, "expected two numbers"),
        ("uniform(2,1)", ConfigError, "a lower and a higher"),
        ("log(0,1)", ConfigError, "above 0"),
        ("integer(1,2.5)", ConfigError, "a lower and a higher"),
    ],
)
def test_a_space_that_is_none_is_refused(text: str, kind: type[MtrlError], message: str) -> None:
    with pytest.raises(kind, match=message):
        dimension_of("agent.discount", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agent.discount=0.9"], "there is nothing to search"),
        (["agent.discount=uniform(0.9,1.5)"], "agent.discount=1.5 is out of range"),
        (["agent.discount=choice(0.9,x)"], "agent.discount"),
        (["agent.discuont=choice(0.9,0.99)"], "did you mean 'agent.discount'"),
        (["name=choice(a,b)"], "name cannot be searched"),
        (["agent.discount=choice(0.9,0.99)", "runtime=ray"], "choose the cluster with --address"),
        (["tasks=[point/obstacle,gym/CartPole-v1]", "agent.discount=choice(0.9,0.99)"], "which have no mean"),
        (["agent=diffusion", "training.updates=choice(10,20)"], "not evaluated while it trains"),
    ],
)
def test_what_no_trial_could_do_is_refused_before_anything(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *SAC, *words, f"output={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_metric_without_a_task_is_the_mean_over_them() -> None:
    records = [
        {"step": 10, "loss": 1.0},
        {"step": 20, "evaluation_success/a": 0.25, "evaluation_success/b": 0.75, "evaluation_return/a": 9.0},
        {"step": 30, "evaluation_success/a": None},
        {"step": 40, "evaluation_success/a": 1.0, "evaluation_success/b": 0.5},
    ]
    lines = [json.dumps(record).encode() for record in records]
    assert next_value(lines, "evaluation_success", -1) == (20, 0.5)
    assert next_value(lines, "evaluation_success", 20) == (40, 0.75)
    assert next_value(lines, "evaluation_success", 40) is None
    assert next_value(lines, "evaluation_success/b", 20) == (40, 0.5)
    assert next_value(lines, "loss", -1) == (10, 1.0)


def test_a_ledger_outlives_its_search(tmp_path: Path) -> None:
    folder, settings = tmp_path / "search", {"metric": "loss", "mode": "min"}
    ledger = Ledger(folder, settings, resume=False)
    for value, state in ((3.0, "finished"), (1.0, "stopped"), (2.0, "finished"), (None, "failed")):
        number = ledger.begin({"a": "1"}, {"a": 1.0}).number
        ledger.note(number, value=value, state=state, step=7)
    assert Ledger(folder, settings, resume=True).trials == ledger.trials
    best = ledger.best("min")
    assert best is not None
    assert (best.name, best.words) == ("trial-0002", ["a=1"]), "one that was stopped early is no best"
    with pytest.raises(ExistsError, match="--resume auto"):
        Ledger(folder, settings, resume=False)
    with pytest.raises(ConfigError, match="begun with mode min, now it is max"):
        Ledger(folder, {**settings, "mode": "max"}, resume=True)


def test_a_trial_that_fits_no_node_is_refused_with_the_numbers(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.largest_node() == 4
    words = [*SAC, "agent.discount=choice(0.9,0.99)", "runtime.workers=2", f"output={tmp_path}"]
    require_shared(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "largest_node", lambda: 1)
        assert main(["tune", *words]) == 2
    assert "a trial needs 2 processors on one node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_stopped_and_goes_on_to_its_end(tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "mtrl.launch.main", "tune", *SAC, "online.steps=3000",
        "stages=[train,evaluate]", "agent.discount=choice(0.9,0.99)", "agent.learning_rate=log(1e-4,1e-2)",
        "--trials", "3", "--concurrent", "2", "name=s", f"output={tmp_path}",
    ]  # fmt: skip
    ledger = tmp_path / "s" / "tune.json"
    first = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and first.poll() is None:
        if ledger.exists() and any(trial["step"] for trial in json.loads(ledger.read_text())["trials"]):
            break
        time.sleep(0.5)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=200)[0]
    assert first.returncode == 130, said
    assert "--resume auto" in said.splitlines()[-1]
    before = json.loads(ledger.read_text())["trials"]
    done = subprocess.run(
        [*words, "--resume", "auto", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)
    assert [trial["values"] for trial in trials[: len(before)]] == [trial["values"] for trial in before]
    assert len(trials) == 3
    assert {trial["state"] for trial in trials} <= {"finished", "stopped"}
    whole = [f"s/trial-{t['number']:04d}" for t in trials if t["state"] == "finished"]
    assert "best: " in done.stderr and "mtrl" in done.stderr
    assert not (tmp_path / "s" / ".ray").exists()
    for name in whole:
        assert main(["report", str(tmp_path / name)]) == 0
