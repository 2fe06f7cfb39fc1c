"""One fault of each kind on Ray, and the chain from a submitted job to a robot: slow, and for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_everything_recovers_and_nothing_comes_late(tmp_path: Path) -> None:
    found = tmp_path / "faults.json"
    words = [sys.executable, str(BENCHMARKS / "faults.py"), "--count", "1", "--json", str(found)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(found.read_text())
    assert (figures["recovered_share"], figures["late_accepted"]) == (1, 0)
    assert figures["fragments_lost_per_kill"] <= 1


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_submitted_job_loses_a_learner_and_a_node_and_ends_on_a_robot(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCHMARKS / "cluster_proof.py"), "--output", str(tmp_path / "proof")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the student has flown" in done.stdout
