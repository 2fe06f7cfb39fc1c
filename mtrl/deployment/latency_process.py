"""Inference latency in a process of its own, as a controller runs.

Inside a process that has trained or held a cluster, other threads and a warm allocator are measured too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mtrl
from mtrl.errors import IntegrityError

from .latency import measure_latency


def latency_apart(artefact: Path, calls: int = 20_000, repeats: int = 3) -> dict[str, Any]:
    """What `LatencyReport.as_json` gives, measured in a fresh process; raises IntegrityError if it fails."""
    root = str(Path(mtrl.__file__).resolve().parent.parent)
    search = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(artefact.resolve()), str(calls), str(repeats)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )
    if done.returncode != 0:
        raise IntegrityError(f"the latency of {artefact} could not be measured:\n{done.stderr.strip()}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


if __name__ == "__main__":
    measured = measure_latency(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    json.dump(measured.as_json(), sys.stdout)
