"""Run directories: nothing is overwritten unasked, and nothing that is no run is ever removed."""

import enum
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from mtrl.errors import ConfigError, ExistsError, ResourceError
from mtrl.run_directory import RunDirectory, require_disk


class Mode(enum.Enum):
    FAST = "fast"


@dataclass(frozen=True)
class Network:
    width: int = 256
    activation: str = "mish"


@dataclass(frozen=True)
class Config:
    learning_rate: float = 3e-5
    network: Network = Network()
    tasks: tuple[str, ...] = ("metaworld/reach-v3",)
    mode: Mode = Mode.FAST
    place: Path = Path("runs")
    budget: int | None = None
    extra: dict[str, float] = field(default_factory=lambda: {"weight": 1.0})


def test_a_new_run_has_its_places(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs" / "first", config=Config())
    assert not run.resumed
    assert sorted(os.listdir(run.path)) == ["checkpoints", "config.yaml", "evaluations", "events", "videos"]
    assert not run.artefact.exists()


def test_config_is_plain_yaml_of_the_nested_dataclass(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config=Config())
    expected = {
        "learning_rate": 3e-5,
        "network": {"width": 256, "activation": "mish"},
        "tasks": ["metaworld/reach-v3"],
        "mode": "fast",
        "place": "runs",
        "budget": None,
        "extra": {"weight": 1.0},
    }
    assert yaml.safe_load(run.config_file.read_text()) == expected
    assert run.read_config() == expected
    run.write_config({"budget": 3})
    assert RunDirectory.open(run.path).read_config() == {"budget": 3}
    with pytest.raises(ConfigError, match=r"config\.tasks\[1\] is a set"):
        run.write_config({"tasks": ["a", {"b"}]})
    assert run.read_config() == {"budget": 3}


def test_an_existing_run_is_refused_and_the_flags_are_told(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run")
    with pytest.raises(ExistsError, match=r"run already holds a run.*--resume auto.*--overwrite"):
        RunDirectory.create(tmp_path / "run")


def test_resume_goes_on_in_the_run_and_starts_one_where_none_is(tmp_path: Path) -> None:
    first = RunDirectory.create(tmp_path / "run", resume=True, config={"seed": 1})
    assert not first.resumed
    first.path.joinpath("metrics.jsonl").write_text("kept\n")
    again = RunDirectory.create(tmp_path / "run", resume=True, config={"seed": 2})
    assert again.resumed
    assert again.path.joinpath("metrics.jsonl").read_text() == "kept\n"
    assert again.read_config() == {"seed": 1}


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run").path.joinpath("metrics.jsonl").write_text("old\n")
    run = RunDirectory.create(tmp_path / "run", overwrite=True)
    assert not run.resumed
    assert not run.path.joinpath("metrics.jsonl").exists()
    assert os.listdir(tmp_path) == ["run"]


def test_no_run_lies_in_a_run_that_may_be_removed(tmp_path: Path) -> None:
    outer = RunDirectory.create(tmp_path / "run").path
    (tmp_path / "link").symlink_to(outer)
    for place in (outer / "inner", tmp_path / "link" / "videos" / "inner"):
        with pytest.raises(ExistsError, match=r"lies in the run .*/run; choose a place beside it"):
            RunDirectory.create(place, resume=True)
        assert not place.exists()


def test_a_link_to_a_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(RunDirectory.create(tmp_path / "run", config={"seed": 4}).path)
    assert RunDirectory.open(tmp_path / "latest").read_config() == {"seed": 4}


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
def test_what_is_no_run_is_never_touched(tmp_path: Path, flags: dict[str, bool]) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.yaml").write_text("theirs: true\n")
    (project / "thesis.tex").write_text("years of work")
    with pytest.raises(ExistsError, match="project exists and is not a run"):
        RunDirectory.create(project, **flags)
    assert (project / "thesis.tex").read_text() == "years of work"
    link = tmp_path / "link"
    link.symlink_to(RunDirectory.create(tmp_path / "run").path)
    with pytest.raises(ExistsError, match="link exists and is not a run"):
        RunDirectory.create(link, **flags)
    (tmp_path / "file").write_text("text")
    with pytest.raises(ExistsError, match="file exists and is not a run"):
        RunDirectory.create(tmp_path / "file", **flags)


def test_an_empty_directory_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert RunDirectory.create(tmp_path / "run").config_file.is_file()


def test_a_config_that_cannot_be_written_spares_the_old_run(tmp_path: Path) -> None:
    old = RunDirectory.create(tmp_path / "run")
    old.path.joinpath("metrics.jsonl").write_text("old\n")
    with pytest.raises(ConfigError, match=r"config\.x is a object"):
        RunDirectory.create(tmp_path / "run", overwrite=True, config={"x": object()})
    assert old.path.joinpath("metrics.jsonl").read_text() == "old\n"


def test_contradicting_flags_and_a_missing_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        RunDirectory.create(tmp_path / "run", overwrite=True, resume=True)
    with pytest.raises(ConfigError, match="absent is not a run"):
        RunDirectory.open(tmp_path / "absent")


def test_disk_is_checked_before_work_starts(tmp_path: Path) -> None:
    require_disk(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(ResourceError, match=r"there needs about 1000000\.0 TB of disk and .* free"):
        require_disk(tmp_path / "not" / "yet" / "there", 10**18)
