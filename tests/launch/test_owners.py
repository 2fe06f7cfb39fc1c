"""Two commands on one run or folder at the same time: one works, the other names it and changes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrl.integrity import MANIFEST, verify_manifest
from mtrl.training import read_jsonl

from ..sweeps import sampled

SMALL = [
    "tasks=point/obstacle",
    "agent.network.width=16",
    "agent.network.blocks=1",
    "agent.batch_size=16",
    "distillation.network.width=16",
    "distillation.network.blocks=1",
    "distillation.batch_size=16",
    "distillation.updates=8",
    "demonstrations.episodes=2",
    "demonstrations.job_episodes=2",
    "training.updates=20",
    "training.log_every=2",
    "training.checkpoint_every=10",
    "training.threads=1",
    "evaluation.episodes=2",
    "evaluation.copies=2",
    "tracking=files",
]
TRAIN = ["train", *SMALL, "name=small", "stages=[collect,train,distill]"]
RESUME = [*TRAIN, "--resume", "auto"]
OVERWRITE = [*TRAIN, "--overwrite"]
EVALUATE = ["evaluate", "runs/small", "--policy", "student", "--overwrite"]
DISTILL = ["distill", "runs/small", "--overwrite"]
EXPORT = ["export", "runs/small", "--overwrite"]
COLLECT = ["collect", *SMALL, "--out", "data"]
DEPLOY = ["deploy", "runs/small/artefact", "--out", "flights", "robot.fifo=false"]

RACES: dict[str, list[list[str]]] = {
    "train": [[*TRAIN[:-2], "name=new", TRAIN[-1]]] * 2,
    "resume": [RESUME, RESUME],
    "overwrite": [OVERWRITE, OVERWRITE],
    "overwrite against resume": [OVERWRITE, RESUME],
    "overwrite against export": [OVERWRITE, EXPORT],
    "evaluate": [EVALUATE, EVALUATE],
    "distill": [DISTILL, DISTILL],
    "export": [EXPORT, EXPORT],
    "collect": [COLLECT, [*COLLECT, "--overwrite"]],
    "deploy": [DEPLOY, [*DEPLOY, "--overwrite"]],
}
CASES = [(name, again) for again in range(5) for name in RACES]

Race = Callable[[Path, list[list[str]]], list[tuple[int, int, str]]]


@pytest.fixture(scope="module")
def race() -> Iterator[Race]:
    """Runs two commands that meet at their lock."""
    command = [sys.executable, "-m", "tests.launch.racing"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    pipes = process.stdin, process.stdout

    def ask(place: Path, commands: list[list[str]]) -> list[tuple[int, int, str]]:
        pipes[0].write(json.dumps({"place": str(place), "commands": commands}) + "\n")
        pipes[0].flush()
        return [tuple(answer) for answer in json.loads(pipes[1].readline())]

    yield ask
    process.communicate()


@pytest.fixture(scope="module")
def finished(race: Race, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the run `runs/small`, trained by one process alone."""
    place = tmp_path_factory.mktemp("finished")
    ((code, _, output),) = race(place, [TRAIN])
    assert code == 0, output
    return place


def content(place: Path) -> dict[str, Any]:
    """What a run is made of, checked to be whole: metrics, and the hashes of policies and artefact."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        assert not path.name.endswith((".partial", ".owner")), path
        if path.name == MANIFEST:
            root = verify_manifest(path.parent)
            if "policies" in path.parts:
                found[name] = root
        elif path.suffix == ".jsonl":
            steps = [record["step"] for record in read_jsonl(path)]
            assert steps == sorted(set(steps)), path
            if path.name == "metrics.jsonl":
                found[name] = path.read_bytes()
        elif path.suffix == ".json":
            json.loads(path.read_text())
    return found


def unfinished(place: Path) -> None:
    """Makes the run what a process leaves that was killed after the checkpoint of step 10."""
    run = place / "runs" / "small"
    for path in ("policies", "student", "checkpoints/20"):
        shutil.rmtree(run / path)


@pytest.mark.parametrize(("name", "again"), sampled(CASES, share=len(CASES)))
def test_one_of_two_commands_works_and_the_other_names_it(
    name: str, again: int, race: Race, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    commands = RACES[name] if again % 2 == 0 else RACES[name][::-1]
    if RESUME in commands:
        unfinished(tmp_path)
    if name == "deploy":
        race(tmp_path, [EXPORT])
    outcome = race(tmp_path, commands)
    assert sorted(code for code, _, _ in outcome) == [0, 2], outcome
    (winner,) = (process for code, process, _ in outcome if code == 0)
    (refusal,) = (output for code, _, output in outcome if code == 2)
    assert f"process {winner} on " in refusal and " is in use by mtrl " in refusal, refusal
    assert "Traceback" not in refusal
    # whoever won, training or distilling again with the same settings gives the same bytes
    expected, found = content(finished), content(tmp_path)
    new = {key.replace("runs/small/", "runs/new/"): value for key, value in expected.items()}
    assert found == (expected | new if name == "train" else expected)
    if name == "collect":
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["point"]
    if name == "deploy":
        assert len(list((tmp_path / "flights" / "deployments").iterdir())) == 2
