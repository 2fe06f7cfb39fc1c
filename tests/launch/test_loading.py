"""What a command says before its own module is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtrl.launch.main import COMMANDS, READS, Announcer, main


@pytest.mark.parametrize("command", READS)
def test_a_path_that_is_not_there_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in COMMANDS
    assert main([command, str(tmp_path / "absent")]) == 2
    assert f"there is no {tmp_path / 'absent'}; expected" in capsys.readouterr().err


def test_nothing_slow_is_imported_to_refuse_a_path() -> None:
    script = (
        "import sys; from mtrl.launch.main import main; "
        "main(['report', 'absent']); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "False\n"
    assert done.stderr.count("\n") == 1


def test_a_slow_package_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert Announcer.find_spec("torch") is None
    assert Announcer.find_spec("torch.nn") is None
    assert capsys.readouterr().err == "mtrl: loading PyTorch ...\n"
