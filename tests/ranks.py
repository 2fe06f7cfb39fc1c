"""Runs a module of the tests as several ranks, which meet over gloo and return JSON and arrays."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtrl.reducer import Reducer, open_gloo

Case = Callable[[Reducer], Mapping[str, Any]]
"""What a rank does; numbers, strings and lists go into its JSON, arrays and tensors into its npz file."""


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["mtrl.agents.diffusion", "mtrl.agents.sac", "mtrl.agents.world_model", "torch._dynamo", "gymnasium"]
)
"""Ranks are forked from one process that has imported torch and, what takes as long, its compiler, which the
first optimiser of a process imports."""


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
    logs = [folder / f"{case}-{rank}.log" for rank in range(size)]
    started = [
        FORKS.Process(
            target=_run, args=([module, case, rank, size, port, folder], logs[rank], {**os.environ})
        )
        for rank in range(size)
    ]
    until = time.monotonic() + limit
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(until - time.monotonic())
            assert process.exitcode is not None, f"{case} of {module} takes longer than {limit:g} s"
    finally:
        for process in started:
            process.kill()
    found = []
    for rank, log in enumerate(path.read_text() for path in logs):
        path = folder / f"{case}-{rank}"
        facts = (
            json.loads(path.with_suffix(".json").read_text()) if path.with_suffix(".json").exists() else {}
        )
        arrays = dict(np.load(path.with_suffix(".npz"))) if path.with_suffix(".npz").exists() else {}
        found.append(Outcome(facts, arrays, log))
    return found


def _run(words: Sequence[object], log: Path, environment: Mapping[str, str]) -> None:
    """`python -m MODULE CASE ...` in a process that has imported nearly everything."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.argv[1:] = [str(word) for word in words[1:]]
    runpy.run_module(str(words[0]), run_name="__main__")


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
