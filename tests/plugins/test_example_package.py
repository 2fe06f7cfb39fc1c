"""A suite, an agent and a robot of a package that is installed like anybody's, and used by the commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["tasks=[example/slide]", "demonstrations.episodes=4", "demonstrations.job_episodes=4",
         "training.threads=1", "tracking=files", "evaluation.episodes=5", "evaluation.copies=5"]  # fmt: skip
TINY = ["agent.network.width=32", "agent.network.blocks=1", "agent.batch_size=32",
        "distillation.network.width=32", "distillation.network.blocks=1", "distillation.batch_size=32",
        "agent.objective=regression", "training.updates=300", "distillation.updates=20"]  # fmt: skip

ASK = """
import contextlib, functools, importlib, io, json
import mtrl
from mtrl import registry
from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.reducer import ALONE
from mtrl.structured import plain
from mtrl.training import undocumented

answers = {}
for words in (["robot.hold_budget=7", "robot=example"], ["robot=sim"]):
    answers[words[-1]] = plain(compose(words, command="deploy").robot)
with contextlib.redirect_stderr(io.StringIO()) as said:
    answers["code"] = main(["train", "agent=example", "agent.learning_rat=1", "tasks=[example/slide]"])
answers["said"] = said.getvalue()
tasks = mtrl.make_tasks("example/slide")
agent = mtrl.train("example", tasks, mtrl.demonstrate(tasks, episodes=2), updates=1).agent
answers["undocumented"] = undocumented(agent.update(ALONE), registry.load("agent", "example").metrics)
places = [
    metric.where
    for name in ("example", "example-planner", "example-reinforce")
    for metric in registry.load("agent", name).metrics.values()
]
for where in places:
    module, _, path = where.partition(":")
    assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module))), where
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package, its entry points among its metadata."""
    folder = tmp_path_factory.mktemp("plugin")
    # A copy, since building leaves files beside the source.
    source = shutil.copytree(ROOT / "examples" / "mtrl_example", folder / "source")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return target


def python(site: Path, place: Path, *words: str) -> str:
    """What a process prints that sees the installed package and this checkout."""
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))), "OMP_NUM_THREADS": "1",
        "COLUMNS": "120", "TMPDIR": str(place),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=place, env=environment,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def mtrl(site: Path, place: Path, *commands: list[str], before: str = "", first: int = 0) -> str:
    """What commands print that one process runs one after another, since most of their time is imports.

    The first one ends with code `first`, the others with 0.
    """
    code = (
        "import json, sys\nfrom mtrl.launch.main import main\n" + before + "expected = int(sys.argv[2])\n"
        "for words in json.loads(sys.argv[1]):\n    assert main(words) == expected, words\n    expected = 0"
    )
    return python(site, place, "-c", code, json.dumps(commands), str(first))


def test_the_suite_is_listed(site: Path, tmp_path: Path) -> None:
    (listed,) = json.loads(mtrl(site, tmp_path, ["tasks", "example", "--json"]))
    assert (listed["task"], listed["observation"], listed["action"], listed["expert"]) == (
        "example/slide", "state 2", "continuous 1", True,
    )  # fmt: skip


def test_nothing_of_it_is_seen_where_it_is_not_installed(tmp_path: Path) -> None:
    code = "from mtrl import registry; print('example' in registry.names('suite'))"
    assert python(tmp_path, tmp_path, "-c", code).strip() == "False"


def test_the_agent_trains_resumes_and_succeeds(site: Path, tmp_path: Path) -> None:
    words = ["train", "agent=example", *SMALL, "training.checkpoint_every=100", "training.updates=200",
             "name=own"]  # fmt: skip
    mtrl(
        site,
        tmp_path,
        [*words, "stages=[collect,train]"],
        [*words, "stages=[collect,train,evaluate]", "--resume", "auto"],
    )
    run = tmp_path / "runs" / "own"
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in written] == [50, 100, 150, 200]
    assert written[-1]["loss"] < written[0]["loss"]
    (result,) = (run / "evaluations").glob("*.json")
    episodes = json.loads(result.read_text())["episodes"]
    assert [episode["success_any"] for episode in episodes] == [True] * 5


def test_our_agent_learns_its_task_and_its_robot_flies_the_artefact(site: Path, tmp_path: Path) -> None:
    # A machine that is busy with other tests is not the robot's fault.
    patient = [
        f"robot.{key}=1000" for key in ("stale_limit_ms", "inference_deadline_ms", "command_timeout_ms")
    ]
    printed = mtrl(
        site,
        tmp_path,
        ["train", "agent=diffusion", *SMALL, *TINY, "name=slide", "stages=[collect,train,distill,export]"],
        ["deploy", "runs/slide/artefact", "robot=example", "--arm", *patient, "--out", "flights"],
    )
    assert "example/slide: success" in printed
    report = json.loads((tmp_path / "flights" / "deployments" / "example-slide.json").read_text())
    assert (report["task"], report["success"], report["robot"]["name"]) == ("example/slide", True, "example")


def success(run: Path) -> float:
    """Share of successful episodes in the run's evaluation."""
    (result,) = (run / "evaluations").glob("teacher-*.json")
    episodes = json.loads(result.read_text())["episodes"]
    return sum(episode["success_any"] for episode in episodes) / len(episodes)


JUDGED = ["evaluation.episodes=40", "evaluation.copies=10"]


def test_groups_improve_a_weak_clone_wherever_they_are_played(site: Path, tmp_path: Path) -> None:
    """A second consumer of the contracts: requested groups, a parent, recorded extras."""
    better = ["train", "agent=example-reinforce", *SMALL, *JUDGED, "init_from=runs/weak", "steps=40000",
              "online.log_every=10000"]  # fmt: skip
    mtrl(
        site,
        tmp_path,
        ["train", "agent=example", *SMALL, *JUDGED, "training.updates=3", "name=weak"],
        [*better, "name=here"],
        [*better, "name=workers", "stages=[train]", "steps=20000", "runtime.workers=2"],
    )
    runs = tmp_path / "runs"
    assert success(runs / "weak") < 0.6
    assert success(runs / "here") > 0.9
    assert json.loads((runs / "here" / "parents.json").read_text())["init_from"]
    # the first two records are those of equal steps
    logged = [(runs / name / "metrics.jsonl").read_text().splitlines()[:2] for name in ("here", "workers")]
    assert logged[0] == logged[1]


STOPPED = """
import signal
from mtrl_example.planner import PlannerAgent
update, pending = PlannerAgent.update, [True]
def stopped(agent, reducer):
    if agent.updates == 500 and pending:
        pending.clear()
        signal.raise_signal(signal.SIGINT)
    return update(agent, reducer)
PlannerAgent.update = stopped
"""
"""Ctrl-C in the midst of the first run."""


def test_a_sequence_model_acts_by_planning_and_resumes_exactly(site: Path, tmp_path: Path) -> None:
    """A third: two optimisers, replayed sequences and extras, planning, a policy with state."""
    words = ["train", "agent=example-planner", *SMALL, *JUDGED, "steps=3500", "online.warmup=500",
             "online.log_every=500", "online.checkpoint_every=1000"]  # fmt: skip
    parts = [*words, "name=parts", "stages=[train]"]
    mtrl(
        site,
        tmp_path,
        parts,
        [*parts, "--resume", "auto"],
        [*words, "name=whole"],
        ["evaluate", "runs/whole", "evaluation.plan=false", "--out", "prior"],
        before=STOPPED,
        first=130,
    )
    (prior,) = (tmp_path / "prior").glob("*.json")
    episodes = json.loads(prior.read_text())["episodes"]
    unplanned = sum(episode["success_any"] for episode in episodes) / len(episodes)
    assert success(tmp_path / "runs" / "whole") > unplanned
    (panel,) = json.loads((tmp_path / "runs" / "whole" / "panels.json").read_text())
    assert (panel["title"], panel["metrics"]) == ("Model and values", ["model_loss", "value_loss"])
    logged = [(tmp_path / "runs" / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert logged[0] == logged[1]


@pytest.fixture(scope="module")
def answers(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds out about the package."""
    found: dict[str, Any] = json.loads(python(site, tmp_path_factory.mktemp("asked"), "-c", ASK))
    return found


def test_a_robot_chosen_by_name_brings_its_own_limits(answers: dict[str, Any]) -> None:
    own, simulated = answers["robot=example"], answers["robot=sim"]
    assert (own["name"], own["rate_limit"], own["hold_last"], own["hold_budget"]) == ("example", 0.5, [], 7)
    assert (simulated["name"], simulated["rate_limit"]) == ("sim", 1.0)


def test_a_wrong_setting_of_the_agent_is_answered_with_its_own_fields(answers: dict[str, Any]) -> None:
    assert answers["code"] == 2
    assert "did you mean 'agent.learning_rate'" in answers["said"]


def test_every_metric_of_its_agent_is_documented(answers: dict[str, Any]) -> None:
    assert answers["undocumented"] == []
