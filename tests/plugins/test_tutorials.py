"""Every Python block of every tutorial runs, one after another as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
SHOWN = {
    "your-own-environment": ("gym/balance", "rail/slide", "point/obstacle", "expert", "random"),
    "your-own-agent": ("point/obstacle", "nearest", "expert"),
    "your-own-robot": ("success", "0.8"),
    "universal-robots": ("reached", "within every limit", "STOP_REQUESTED"),
    "your-own-weighting-and-torso": ("[0.5 1.5]", "updates with softmax"),
}
"""Tutorial -> what its blocks print."""


def blocks_of(tutorial: Path) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", tutorial.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_the_blocks_run(tutorial: Path, tmp_path: Path) -> None:
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(blocks_of(tutorial)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in SHOWN[tutorial.stem]:
        assert word in done.stdout, f"{word} was not printed:\n{done.stdout}"
