"""How fast two commits are: each one's own benchmarks in turn, round after round."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .ratios import Comparison, Pair, better
from .trees import CommitError, Side, write_json

SCRIPTS = {"stepping": 1.5, "sac": 3.0, "gradients": 4.0}
"""Benchmark -> minutes that one process of it takes on two cores; printed beforehand."""
SHORT = ("--runs", "1")
"""Runs within a process: the rounds are the repetitions."""
NO_FIGURES = {"load_average"}
"""Numbers in a benchmark's file that it did not measure."""


def compare_speed(
    sides: Sequence[Side], scripts: Sequence[str], rounds: int, path: Path | None, console: Console
) -> Comparison:
    """Measures what `path`'s file of finished pairs lacks, prints the table and returns its figures.

    With `path` the figures are written there, and every finished pair next to it until then.

    Raises:
        CommitError: a commit lacks a benchmark, one failed or wrote a figure that is not in `KINDS`, or
            the file of finished pairs is of other commits.
    """
    for side in sides:
        if lacking := [script for script in scripts if not (side.tree / program_of(script)).exists()]:
            there = ",".join(script for script in scripts if script not in lacking)
            raise CommitError(
                f"{side} has no benchmark {', '.join(lacking)}; leave it out with --only {there}"
            )
    changed = changed_benchmarks(sides)
    for name in changed:
        console.print(
            f"benchmarks/{name} differs between the commits, and so may its figures", highlight=False
        )
    kept = Kept(path, [side.commit for side in sides])
    plan = [(number, script) for number in range(1, rounds + 1) for script in scripts]
    waiting = [(number, script) for number, script in plan if kept.find(script, number) is None]
    if len(waiting) < len(plan):
        console.print(
            f"{len(plan) - len(waiting)} of {len(plan)} pairs are kept from before", highlight=False
        )
    for position, (number, script) in enumerate(waiting):
        left = sum(kept.minutes(name) for _, name in waiting[position:])
        now = f"round {number} of {rounds}, {script}: about {kept.minutes(script):.1f} minutes"
        console.print(f"{now}, and {left:.0f} until the end", highlight=False)
        kept.add(measure_pair(sides, script, number, console))
    pairs = [pair for number, script in plan if (pair := kept.find(script, number)) is not None]
    comparison = Comparison.of(pairs)
    console.print(comparison.table(str(sides[0]), str(sides[1])))
    for key, reason in comparison.left_out.items():
        console.print(f"left out of the mean: {key}, {reason}", highlight=False)
    if path is not None:
        origin = {**{side.name: side.commit for side in sides}, "changed_benchmarks": changed}
        machine = {"processors": os.cpu_count(), "load_average": round(os.getloadavg()[0], 2)}
        write_json(path, origin | comparison.record() | machine | {"pairs": pairs})
        kept.drop(scripts)
        console.print(f"figures are in {path}", highlight=False)
    return comparison


class Kept:
    """Finished pairs next to the file of figures, so that an interrupted comparison continues."""

    def __init__(self, path: Path | None, commits: Sequence[str]) -> None:
        """Reads what is there; raises CommitError for pairs of other commits. None keeps nothing on disk."""
        self._path = None if path is None else path.with_name(path.name + ".rounds")
        self._commits = list(commits)
        self.pairs: list[Pair] = []
        if self._path is not None and self._path.exists():
            record = json.loads(self._path.read_text(encoding="utf-8"))
            if record["commits"] != self._commits:
                raise CommitError(
                    f"{self._path} holds rounds of {' and '.join(record['commits'])}, where "
                    f"{' and '.join(self._commits)} are compared; go on with those commits, remove the file, "
                    "or name another one with --json"
                )
            self.pairs = record["pairs"]

    def find(self, script: str, number: int) -> Pair | None:
        """The finished pair of that round."""
        found = (pair for pair in self.pairs if (pair["script"], pair["round"]) == (script, number))
        return next(found, None)

    def add(self, pair: Pair) -> None:
        """Keeps one, on the disk when this returns."""
        self.pairs.append(pair)
        if self._path is not None:
            self._save(self._path)

    def minutes(self, script: str) -> float:
        """What a pair may take: as long as those before it."""
        known = [sum(pair["seconds"]) / 60 for pair in self.pairs if pair["script"] == script]
        return statistics.mean(known) if known else 2 * SCRIPTS[script]

    def drop(self, scripts: Sequence[str]) -> None:
        """Forgets the pairs of these benchmarks, whose figures are written."""
        self.pairs = [pair for pair in self.pairs if pair["script"] not in scripts]
        if self._path is not None and self.pairs:
            self._save(self._path)
        elif self._path is not None:
            self._path.unlink(missing_ok=True)

    def _save(self, path: Path) -> None:
        write_json(path, {"commits": self._commits, "pairs": self.pairs})


def changed_benchmarks(sides: Sequence[Side]) -> list[str]:
    """Names of the files in benchmarks/ that both commits have and that differ: what they measure may too."""
    before, after = ({path.name: path for path in side.tree.glob("benchmarks/*.py")} for side in sides)
    common = sorted(before.keys() & after.keys())
    return [name for name in common if before[name].read_bytes() != after[name].read_bytes()]


def program_of(script: str) -> str:
    """The benchmark's file within a work tree."""
    return f"benchmarks/{script}.py"


def measure_pair(sides: Sequence[Side], script: str, number: int, console: Console) -> Pair:
    """Runs one benchmark at BEFORE, then at AFTER."""
    figures, seconds = [], []
    for side in sides:
        began = time.monotonic()
        figures.append(measure(side, script))
        seconds.append(round(time.monotonic() - began, 1))
        console.print(f"  {side}: {seconds[-1]:.0f} s", highlight=False)
    return {"script": script, "round": number, "before": figures[0], "after": figures[1], "seconds": seconds}


def measure(side: Side, script: str) -> dict[str, float]:
    """The figures of a benchmark at a commit; raises CommitError where it fails, or for an unknown figure."""
    written = side.scratch / f"{script}.json"
    written.unlink(missing_ok=True)
    with side.start(program_of(script), *SHORT, f"--json={written}") as program:
        program.finish()
    record = json.loads(written.read_text(encoding="utf-8"))
    figures = {
        f"{script}/{key}": float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and key not in NO_FIGURES
    }
    for key, value in figures.items():
        better(key, value)
    return figures
