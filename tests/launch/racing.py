"""Two commands at once, brought to the same lock before either may take it.

`python -m tests.launch.racing` reads one race a line, a JSON object of `place` (the working directory) and
`commands` (two lists of words), and answers with `[[exit code, process id, output], ...]`. The children are
forked from a process that has imported everything, so that a race takes as long as its commands.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

# all that a command imports when it runs; the compiler when it makes its first optimiser
import torch._dynamo  # noqa: F401

from mtrl import ownership, registry
from mtrl.launch.main import main

PATIENCE_SECONDS = 100.0
"""Longest wait for the other command."""


def race(place: str, commands: Sequence[Sequence[str]]) -> list[tuple[int, int, str]]:
    """Runs the commands; nobody takes the first lock before all are there, and nobody goes on with it before
    all have an answer.
    """
    with tempfile.TemporaryDirectory() as marks:
        children = [_fork(place, words, Path(marks), len(commands)) for words in commands]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        outputs = [Path(marks, f"output-{child}").read_text() for child in children]
    return list(zip(codes, children, outputs, strict=True))


def _fork(place: str, words: Sequence[str], marks: Path, count: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(marks / f"output-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(place)
        sys.argv = ["mtrl", *words]
        _meet_at_the_lock(marks, count)
        code = main(words)
    except Exception:  # noqa: BLE001 - whatever it is, it is read in the output
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _meet_at_the_lock(marks: Path, count: int) -> None:
    take = ownership._take

    def meet(what: str) -> None:
        (marks / f"{what}-{os.getpid()}").touch()
        until = time.monotonic() + PATIENCE_SECONDS
        while len(list(marks.glob(f"{what}-*"))) < count and time.monotonic() < until:
            time.sleep(0)

    def forced(lock: Path, what: str, shared: bool) -> Path:
        ownership._take = take
        meet("here")
        try:
            claim = take(lock, what, shared)
        finally:
            (marks / f"answered-{os.getpid()}").touch()
        meet("answered")
        return claim

    ownership._take = forced


if __name__ == "__main__":
    registry.task("point/obstacle")
    for line in sys.stdin:
        print(json.dumps(race(**json.loads(line))), flush=True)
