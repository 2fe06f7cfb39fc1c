"""`--json` prints one value and nothing else on standard output, whatever else is printed meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.launch.arguments import with_json
from mtrl.launch.main import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "--json"], ["a", "--json=-"]),
        (["--json", "runs/a", "b"], ["--json=-", "runs/a", "b"]),
        (["a", "--json", "f.json", "b"], ["a", "--json=f.json", "b"]),
        (["a", "--json", "-"], ["a", "--json=-"]),
        (["a", "--json=f"], ["a", "--json=f"]),
    ],
)
def test_only_a_json_file_belongs_to_the_flag(words: list[str], expected: list[str]) -> None:
    assert with_json(words) == expected


def test_standard_output_holds_the_value_alone(tmp_path: Path) -> None:
    words = ["evaluate", "random", "tasks=point/obstacle", "episodes=2", "--csv", "rows.csv", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mtrl.launch.main", *words, "--out", "results"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=150,
        check=True,
    )
    (found,) = json.loads(done.stdout)
    assert found["policy"]["label"] == "random" and found["tasks"][0]["name"] == "point/obstacle"
    assert "episodes" not in found and "results are in" in done.stderr
    file = json.loads((tmp_path / found["file"]).read_text())
    assert len(file["episodes"]) == 2
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3


def test_a_named_file_is_written_once_and_a_failure_writes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tasks.json"
    assert main(["tasks", "maze2d/*", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())) == 4 and "maze2d" in capsys.readouterr().out
    assert main(["tasks", "maze2d/*", "--json", str(file)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["tasks", "no-such-task", "--json"]) == 2
    assert capsys.readouterr().out == ""
