"""What README shows works: its Python example runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import mtrl
from mtrl.launch.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    for name in mtrl.make_tasks("mixed").names:
        assert name in done.stdout
    assert "mean" in done.stdout and "[" in done.stdout
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 10, "the example is ten lines"


def test_every_command_is_shown() -> None:
    assert set(re.findall(r"^mtrl (\w+)", README, flags=re.MULTILINE)) == set(COMMANDS)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150
