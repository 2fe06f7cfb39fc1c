"""The tables of stages and policies agree with what a run does."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtrl.errors import UnknownNameError
from mtrl.pipeline import STAGE_NAMES, STAGES, Config, stages_of
from mtrl.training import POLICIES, RunDirectory


def test_a_configuration_names_every_stage_in_its_order() -> None:
    assert [stage.name for stage in STAGES] == list(STAGE_NAMES)


def test_stages_are_taken_in_their_own_order() -> None:
    assert [stage.name for stage in stages_of(["report", "train", "collect"])] == [
        "collect",
        "train",
        "report",
    ]
    with pytest.raises(UnknownNameError, match="did you mean 'distill'"):
        Config(stages=("distil",))


def test_every_policy_trains_in_a_folder_of_its_own(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert [run.training(policy.label) for policy in POLICIES] == [
        tmp_path,
        tmp_path / "bc",
        tmp_path / "student",
    ]
    assert sorted(policy.headline for policy in POLICIES) == list(range(len(POLICIES)))
