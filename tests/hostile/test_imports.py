"""A file names no code: a module that a task's name imports is imported on the user's word alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from mtrl import registry
from mtrl.deployment import TaskEntry
from mtrl.envs.gym.suite import SUITE
from mtrl.errors import UntrustedCodeError
from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.launch.reopen import recorded_config
from mtrl.structured import plain
from mtrl.training import RunDirectory

from ..deployment.graphs import write_linear

Capture = pytest.CaptureFixture[str]

MODULE = "module_of_a_stranger"
TASK = f"gym/{MODULE}:CartPole-v1"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported, and leaves a file when it is."""
    trace = tmp_path / "imported"
    (tmp_path / f"{MODULE}.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_importable", set())
    monkeypatch.setattr(SUITE, "_built", {})
    yield trace
    sys.modules.pop(MODULE, None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose configuration names the module."""
    recorded = plain(compose(["tasks=[gym/CartPole-v1]", "agent=sac"]))
    recorded["tasks"]["names"] = [TASK]
    RunDirectory.create(tmp_path / "run", config=recorded)
    return tmp_path / "run"


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """An artefact whose manifest names the module."""
    entry = TaskEntry(TASK, 0, state_size=4, action_size=3, rate_hz=50.0, protocol_hash="0" * 16)
    weights = np.zeros((4, 3), dtype=np.float32)
    write_linear(tmp_path / "artefact", (entry,), weights)
    return tmp_path / "artefact"


@pytest.mark.parametrize("command", ["evaluate", "watch", "export", "distill"])
def test_a_configuration_imports_nothing(command: str, run: Path, module: Path, capsys: Capture) -> None:
    assert main([command, str(run)]) == 2
    said = capsys.readouterr().err
    assert f"{run / 'config.yaml'} names the task '{TASK}'" in said
    assert f"run: mtrl {command} {run} --allow-import {MODULE}" in said
    assert not module.exists()


@pytest.mark.parametrize("command", ["evaluate", "watch", "deploy"])
def test_a_manifest_imports_nothing(command: str, artefact: Path, module: Path, capsys: Capture) -> None:
    assert main([command, str(artefact)]) == 2
    assert f"run: mtrl {command} {artefact} --allow-import {MODULE}" in capsys.readouterr().err
    assert not module.exists()


def test_a_parent_imports_nothing(run: Path, artefact: Path, module: Path, capsys: Capture) -> None:
    (run / "policies" / "teacher").mkdir(parents=True)
    for parent in (run, artefact):
        words = [
            "train",
            "tasks=[gym/CartPole-v1]",
            "agent=sac",
            f"init_from={parent}",
            f"output={run.parent}",
        ]
        assert main(words) == 2
        assert "is a policy of" in capsys.readouterr().err
    assert not module.exists()


def test_the_users_word_imports(run: Path, module: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(run), "--allow-import", MODULE]) == 2
    assert "has no finished policy" in capsys.readouterr().err
    assert module.exists()


def test_another_modules_name_does_not(run: Path, module: Path) -> None:
    assert main(["evaluate", str(run), "--allow-import", "os"]) == 2
    assert not module.exists()


def test_a_task_that_the_user_names_is_imported(module: Path) -> None:
    config = compose([f"tasks=[{TASK}]"])
    registry.require_imports(config.tasks.names, "the same process")
    assert not module.exists()
    assert registry.task_set(list(config.tasks.names)).names == (TASK,)
    assert module.exists()


def test_names_without_a_module_import_nothing() -> None:
    registry.require_imports(["mt10", "gym/CartPole-v1", "metaworld/reach-v3"], "a file")
    with pytest.raises(UntrustedCodeError, match=r"imports the module 'a\.b'"):
        registry.require_imports(["gym/a.b:ALE/Pong-v5"], "a file")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a${now:%Y}", "${seed}", "${mtrl.x:1}"])
def test_a_recorded_configuration_resolves_nothing(value: str, run: Path) -> None:
    registry.allow_imports([MODULE])
    place = run / "config.yaml"
    mark, _, text = place.read_text().partition("\n")
    recorded = yaml.safe_load(text)
    recorded["output"] = value
    recorded["tasks"]["options"] = {"gym": {"horizon": value}}
    place.write_text(f"{mark}\n{yaml.safe_dump(recorded)}")
    config = recorded_config(RunDirectory.open(run), ("evaluation.episodes=3",), "evaluate")
    assert config.output == value
    assert config.tasks.options == {"gym": {"horizon": value}}
