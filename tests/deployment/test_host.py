"""What the system says about stolen time."""

from __future__ import annotations

import os
from pathlib import Path

from mtrl.deployment.host import stolen_seconds


def test_stolen_ticks_become_seconds(tmp_path: Path) -> None:
    source = tmp_path / "stat"
    # user nice system idle iowait irq softirq steal guest guest_nice, as in proc(5)
    source.write_text("cpu  100 1 200 3000 4 5 6 250 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert stolen_seconds(source) == 250 / os.sysconf("SC_CLK_TCK")


def test_a_system_that_does_not_tell_counts_as_none(tmp_path: Path) -> None:
    assert stolen_seconds(tmp_path / "missing") == 0.0
    (tmp_path / "old").write_text("cpu 1 2 3\n")
    assert stolen_seconds(tmp_path / "old") == 0.0
