"""What cannot be done is said before anything is begun, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import mtrl as library
from mtrl import registry
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.pipeline import open_session
from mtrl.rollout import LocalRollouts, require_experts
from mtrl.structured import plain
from mtrl.training import RunDirectory

from ..synthetic import counter_suite

Capture = pytest.CaptureFixture[str]

TASKS = ["metaworld/reach-v3", "gym/CartPole-v1", "atari/Pong"]
LISTED = "tasks=[" + ",".join(TASKS) + "]"


@pytest.fixture(autouse=True)
def _nothing_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        pytest.fail("something was played")

    monkeypatch.setattr(LocalRollouts, "run", run)


def test_every_task_without_an_expert_is_named() -> None:
    require_experts(registry.task_set(["metaworld/reach-v3", "point/obstacle"]))
    with pytest.raises(UnsupportedError, match=r"gym/CartPole-v1 .*atari/Pong") as refused:
        require_experts(registry.task_set(TASKS))
    assert "reach" not in str(refused.value)
    assert "Leave these tasks out" in str(refused.value)


def test_an_expert_of_a_discrete_task_is_none() -> None:
    with counter_suite() as suite:
        assert suite.has_experts
        with pytest.raises(UnsupportedError, match=r"counter/frames \(discrete"):
            require_experts(registry.task_set(["counter/frames"]))


@pytest.mark.parametrize("words", [["collect"], ["evaluate", "expert"]])
def test_missing_experts_are_refused_by_commands(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main([*words, LISTED, "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert "gym/CartPole-v1" in said and "atari/Pong" in said
    assert list(tmp_path.iterdir()) == []


def test_missing_experts_are_refused_in_notebooks() -> None:
    for call in (lambda: library.demonstrate(TASKS, episodes=1), lambda: library.evaluate("expert", TASKS)):
        with pytest.raises(UnsupportedError, match=r"gym/CartPole-v1 .*atari/Pong"):
            call()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["tasks=[metaworld/reach-v3,dmc/cartpole-swingup]"], "no scripted expert for dmc/cartpole-swingup"),
        (["tasks=point/obstacle", "data=NOWHERE"], "has no demonstrations of point/obstacle"),
        (["tasks=dmc/cartpole-swingup", "data=NOWHERE"], "dmc/cartpole-swingup, and there is no scripted"),
        (["tasks=point/obstacle", "agent.name=difusion"], "did you mean 'diffusion'"),
    ],
)
def test_a_training_that_is_refused_leaves_its_name_free(
    words: list[str], answer: str, tmp_path: Path, capsys: Capture
) -> None:
    asked = [word.replace("NOWHERE", str(tmp_path / "nowhere")) for word in words]
    assert main(["train", *asked, f"output={tmp_path}", "name=mine"]) == 2
    assert answer in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_keys_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    composed = compose(["agent=sac", "torso=mlp", "gradients=mgda", "tasks=point/obstacle"])
    config = dataclasses.replace(composed, output=str(tmp_path), name="old")
    older = plain(config)
    older["agent"]["gradients"]["way"] = "measure"
    del older["agent"]["gradients"]["row_method"], older["agent"]["network"]["torso"]["moore"]
    del older["distillation"]["method"]
    RunDirectory.create(tmp_path / "old", config=older)
    with open_session(config, overwrite=False, resume=True) as session:
        assert session.run.read_config() == older


def test_a_run_that_began_before_a_setting_existed_is_not_resumed_as_another(tmp_path: Path) -> None:
    config = dataclasses.replace(compose(["tasks=point/obstacle"]), output=str(tmp_path), name="old")
    older = plain(config)
    del older["sampling"]
    RunDirectory.create(tmp_path / "old", config=older)
    words = r"started without sampling, now it is \{.*version of mtrl that began it.*can be evaluated"
    with pytest.raises(ConfigError, match=words), open_session(config, overwrite=False, resume=True):
        pytest.fail("opened")


@pytest.mark.parametrize("words", [["watch", "random"], ["evaluate", "random"]])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_played(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    with counter_suite() as suite:
        task = "task=counter/short" if words[0] == "watch" else "tasks=counter/short"
        assert main([*words, task, "--out", str(tmp_path / "file" / "films")]) == 2
        assert suite.built == []
    assert f"cannot write to {tmp_path / 'file' / 'films'}: Not a directory" in capsys.readouterr().err
