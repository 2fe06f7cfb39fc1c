"""Where things are: a run means the same from every folder, and its name stays among the runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from mtrl.errors import ConfigError
from mtrl.launch.compose import compose
from mtrl.launch.main import main
from mtrl.pipeline import Config
from mtrl.run_directory import RunDirectory, split_label

ONE = ["tasks=point/obstacle", "demonstrations.episodes=1", "demonstrations.job_episodes=1"]
SMALL = [*ONE, "stages=[collect]"]


def test_a_relative_path_is_recorded_so_that_it_holds_from_every_folder(tmp_path: Path) -> None:
    begun, later = tmp_path / "begun", tmp_path / "later"
    begun.mkdir()
    later.mkdir()
    with contextlib.chdir(begun):
        assert main(["collect", *ONE, "--out", "datasets"]) == 0
        assert main(["train", *SMALL, "data=datasets", "name=mine"]) == 0
    run = RunDirectory.open(begun / "runs" / "mine")
    assert run.read_config()["data"] == str(begun / "datasets")
    with contextlib.chdir(later):
        again = ["train", *SMALL, "output=../begun/runs", "name=mine", "--resume", "auto"]
        assert main([*again, "data=../begun/datasets"]) == 0
        assert main([*again, "data=datasets"]) == 2, "other data"
        read = compose(["updates=1"], command="distill", base=run.read_config())
    assert read.data == str(begun / "datasets")


def test_the_paths_of_policies_are_anchored_too(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        config = compose(["teacher=runs/a", "student=bc@runs/b"])
        (tmp_path / "odd@name").mkdir()
        odd = compose(["reference=odd@name"])
    assert config.teacher == f"{tmp_path}/runs/a" and config.student == f"bc@{tmp_path}/runs/b"
    assert odd.reference == f"{tmp_path}/odd@name"
    assert (config.init_from, config.data) == ("", "")


def test_a_name_that_leaves_the_folder_of_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("/tmp/x", "a/../../x", ".", "a//b", "a/", ".hidden"):
        with pytest.raises(ConfigError, match=r"is no name of a folder in 'runs'"):
            Config(name=name)
    assert Config(name="group/first").name == "group/first"
    with contextlib.chdir(tmp_path):
        assert main(["train", *SMALL, "name=../../x"]) == 2
    assert "name=../../x is no name of a folder in 'runs'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "label", "path"),
    [
        ("runs/a", "", "runs/a"),
        ("bc@runs/a", "bc", "runs/a"),
        ("bc@runs/a@2", "bc", "runs/a@2"),
        ("/home/me@work/runs/a", "", "/home/me@work/runs/a"),
        ("odd@name", "", "odd@name"),
    ],
)
def test_a_label_stands_before_the_first_at_sign(text: str, label: str, path: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        (tmp_path / "odd@name").mkdir()
        assert split_label(text) == (label, Path(path))
        reference = compose([f"reference={text}"]).reference
        assert split_label(reference) == (label, tmp_path / path)
