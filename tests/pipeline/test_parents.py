"""Policies that a run starts from: of the same tasks, by label, and the same again on resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mtrl.errors import ConfigError, MtrlError
from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.pipeline import Config, parents_of, save_policy, task_set_of
from mtrl.rollout import PolicySnapshot
from mtrl.structured import plain
from mtrl.training import Checkpoints, RunDirectory

ONE, TWO = "gym/CartPole-v1", "gym/MountainCar-v0"


def config(*tasks: str, **parents: str) -> Config:
    return dataclasses.replace(compose([f"tasks=[{','.join(tasks)}]"]), **parents)  # type: ignore[arg-type]


def a_run(place: Path, *tasks: str, labels: tuple[str, ...] = ("teacher",), version: int = 0) -> Path:
    """A finished run of a policy that plays at random."""
    run = RunDirectory.create(place, config=plain(config(*tasks)), overwrite=True)
    for label in labels:
        save_policy(run.path / "policies" / label, PolicySnapshot("random", version=version))
    return place


def load(asked: Config, place: Path | None = None) -> set[str]:
    return set(parents_of(asked, task_set_of(asked), ("init_from", "teacher"), place))


def test_a_policy_of_other_tasks_or_of_another_order_is_refused(tmp_path: Path) -> None:
    parent = str(a_run(tmp_path / "parent", ONE, TWO))
    assert load(config(ONE, TWO, init_from=parent)) == {"init_from"}
    for others in ((TWO, ONE), (ONE,)):
        with pytest.raises(ConfigError, match=rf"a policy of {ONE}, {TWO}; expected one of {others[0]}"):
            load(config(*others, init_from=parent))


def test_a_label_is_one_of_the_runs_own(tmp_path: Path) -> None:
    parent = a_run(tmp_path / "parent", ONE, labels=("teacher", "bc"))
    assert load(config(ONE, teacher=f"bc@{parent}")) == {"teacher"}
    with pytest.raises(ConfigError, match=r"no finished policy 'bx'; it has bc, teacher"):
        load(config(ONE, teacher=f"bx@{parent}"))
    with pytest.raises(ConfigError, match="names no policy before the @"):
        load(config(ONE, teacher=f"@{parent}"))
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    (artefact / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="an artefact, which holds one policy; leave bc@ out"):
        load(config(ONE, teacher=f"bc@{artefact}"))
    with pytest.raises(MtrlError):
        load(config(ONE, teacher=str(artefact)))


def test_a_training_goes_on_with_the_parents_that_it_began_with(tmp_path: Path) -> None:
    parent, place = str(a_run(tmp_path / "parent", ONE)), tmp_path / "here"
    asked = config(ONE, init_from=parent)
    place.mkdir()
    load(asked, place)
    a_run(tmp_path / "parent", ONE, version=7)
    load(asked, place)  # nothing was trained yet
    Checkpoints(place).save(3, {})
    load(asked, place)
    with pytest.raises(ConfigError, match=r"init_from is another policy .*\(none against"):
        load(config(ONE), place)
    a_run(tmp_path / "parent", ONE, version=8)
    with pytest.raises(ConfigError, match="trained further or replaced"):
        load(asked, place)


def test_a_parent_that_nobody_takes_leaves_the_name_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", f"tasks={ONE}", "agent=sac", f"output={tmp_path}", "name=mine"]
    for key, answer in (("reference", "takes no reference"), ("init_from", "nowhere")):
        assert main([*words, f"{key}={tmp_path / 'nowhere'}"]) == 2
        assert answer in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == [], key
