"""Runs a module of the tests as several ranks, which meet over gloo and hand back JSON and arrays."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtrl.reducer import Reducer, open_gloo

Case = Callable[[Reducer], Mapping[str, Any]]
"""What a rank does; numbers, strings and lists go into its JSON, arrays and tensors into its npz file."""


@dataclass(frozen=True)
class Outcome:
    """What one rank handed back."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    log: str


def play(module: str, case: str, folder: Path, size: int = 2, *, limit: float = 120.0) -> list[Outcome]:
    """Runs `case` of `module` on every rank; fails where one takes longer than `limit` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, case, str(rank), str(size), str(port), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        logs = [process.communicate(timeout=limit)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    found = []
    for rank, log in enumerate(logs):
        path = folder / f"{case}-{rank}"
        facts = (
            json.loads(path.with_suffix(".json").read_text()) if path.with_suffix(".json").exists() else {}
        )
        arrays = dict(np.load(path.with_suffix(".npz"))) if path.with_suffix(".npz").exists() else {}
        found.append(Outcome(facts, arrays, log))
    return found


def main(cases: Mapping[str, Case], timeout: float = 20.0) -> None:
    """What the module does when it is run as a rank; an error is a fact too."""
    case, rank, size, port, folder = sys.argv[1:6]
    torch.set_num_threads(1)
    reducer = open_gloo(int(rank), int(size), port=int(port), timeout=timeout)
    found: dict[str, Any] = {}
    try:
        found = dict(cases[case](reducer))
    except Exception as error:  # noqa: BLE001 - the test looks at it
        found = {"error": type(error).__name__, "message": str(error)}
    arrays = {k: np.asarray(v) for k, v in found.items() if isinstance(v, np.ndarray | torch.Tensor)}
    path = Path(folder) / f"{case}-{rank}"
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    path.with_suffix(".json").write_text(json.dumps({k: v for k, v in found.items() if k not in arrays}))
    # a peer may still be at work, or gone: nothing here waits for it
    sys.stdout.flush()
    os._exit(0)
