"""Runs what a study lacks, two trainings side by side, and keeps each as soon as it is finished."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .meter import Meter
from .record import REFERENCES, RUNS, Finished, Study, StudyError, read_finished, write_finished
from .table import draw

PROGRAM = (sys.executable, "-m", "mtrl.launch.main")
"""What runs `mtrl`."""

REFERENCE_PROGRAM = (sys.executable, "-m", "benchmarks.studies.reference_policies")
"""Evaluates the reference policies of a study."""

PATIENCE_SECONDS = 120.0
"""How long an interrupted training may take to save itself before it is ended."""


@dataclass
class _Child:
    study: Study
    variant: str
    seed: int
    process: subprocess.Popen[bytes]
    log: Path
    commit: str | None
    meter: Meter


def run_studies(
    studies: Sequence[Study],
    results: Path,
    *,
    jobs: int = 2,
    root: Path = Path(),
    program: Sequence[str] = PROGRAM,
    only: Collection[str] = (),
) -> None:
    """Runs every missing run of every study and redraws the tables.

    Each training has one thread, its own session (Ctrl-C reaches it through this process alone) and a log
    next to its folder. A run that is in the file is not repeated; an interrupted one is continued.

    Args:
        studies: what to run, in order.
        results: folder of the committed files.
        jobs: trainings side by side, at least 1.
        root: folder to run in; runs lie in its runs/studies.
        program: command that the words of `mtrl` are added to.
        only: variants to run now; all where empty.

    Raises:
        StudyError: a run in the file was made by another command, another process runs these studies, or
            runs failed; those that finished are kept.
        KeyboardInterrupt: after Ctrl-C, when every training has saved itself.
    """
    lacking = [(study, *run) for study in studies for run in missing(study, results)]
    waiting = [item for item in lacking if not only or item[1] in only]
    failed: list[str] = []
    running: list[_Child] = []
    with ExitStack() as stack:
        for study in studies:
            stack.enter_context(_only_one(root / RUNS / study.name))
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    commit = source_commit(root, results)
                    running.append(_start(*waiting.pop(0), root, program, commit))
                time.sleep(0.1)
                for child in running:
                    child.meter.look()
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    problem = _keep(child, results, root)
                    failed += [problem] if problem else []
        finally:
            _stop(running)
            for study in studies:
                draw_study(study, results)
    if failed:
        raise StudyError("; ".join(failed) + "; run the same command again to continue")


def missing(study: Study, results: Path) -> list[tuple[str, int]]:
    """(variant, seed) of the runs that the study's file lacks.

    Raises:
        StudyError: the file holds a run of this name that another command made.
    """
    finished = read_finished(results / f"{study.name}.json", study.name)
    for variant, seed in study.runs():
        key = study.key(variant, seed)
        if key in finished and finished[key].command != study.command(variant, seed):
            raise StudyError(
                f"{results / study.name}.json holds {key} of another command:\n  {finished[key].command}\n"
                f"the study would run\n  {study.command(variant, seed)}\n"
                "remove the entry to run it again, or rename the variant"
            )
    return [(variant, seed) for variant, seed in study.runs() if study.key(variant, seed) not in finished]


def draw_study(study: Study, results: Path) -> None:
    """Writes the study's page from its file; nothing without one."""
    finished = read_finished(results / f"{study.name}.json", study.name)
    if finished:
        (results / f"{study.name}.md").write_text(draw(study, finished), encoding="utf-8")


def source_commit(root: Path, results: Path) -> str | None:
    """The commit of the checkout at `root`, with "-dirty" for changes outside the folder of the results.

    A study's own results change that folder while it runs. None outside a checkout.
    """
    if not (root / ".git").exists():
        return None
    apart = os.path.relpath(results.resolve(), root.resolve())
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ".", f":(exclude){apart}"])
    head, changes = (
        subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        for words in commands
    )
    return f"{head}-dirty" if changes else head


def _start(
    study: Study, variant: str, seed: int, root: Path, program: Sequence[str], commit: str | None
) -> _Child:
    key = study.key(variant, seed)
    log = root / RUNS / study.name / f"{key}.log"
    chosen = REFERENCE_PROGRAM if variant == REFERENCES else program
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*chosen, *study.words(variant, seed)],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print(f"{study.name}: {key} began, log in {log}", flush=True)
    meter = Meter(log.with_suffix(".processor.jsonl"), log.with_suffix("") / "metrics.jsonl", process.pid)
    return _Child(study, variant, seed, process, log, commit, meter)


def _keep(child: _Child, results: Path, root: Path) -> str:
    """Adds a finished run to the study's file; returns what went wrong, or ""."""
    study, key = child.study, child.study.key(child.variant, child.seed)
    if child.process.returncode != 0:
        return f"{study.name}: {key} ended with code {child.process.returncode}, see {child.log}"
    path = results / f"{study.name}.json"
    command = study.command(child.variant, child.seed)
    run = Finished.collect(root / RUNS / study.name / key, command, child.seed, child.commit)
    write_finished(path, study.name, read_finished(path, study.name) | {key: run})
    print(f"{study.name}: {key} finished in {run.minutes:.1f} minutes", flush=True)
    return ""


def _stop(running: Sequence[_Child]) -> None:
    """Asks every training to save itself, as Ctrl-C would, and ends those that do not."""
    for child in running:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for child in running:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@contextmanager
def _only_one(place: Path) -> Iterator[None]:
    """Holds the study's lock; the system releases it when the process ends, however it ends."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise StudyError(f"another process runs the study in {place}; wait for it") from problem
        yield
