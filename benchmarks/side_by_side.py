"""Measuring things against each other on a machine that is never quiet: interleaved runs, medians, ratios.

python benchmarks/side_by_side.py docs/results/stepping.json      draws docs/results/stepping.md
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mtrl.evaluation import Provenance

RUNS = 5
"""Interleaved runs behind every median."""


def interleave(rivals: Mapping[str, Callable[[], float]], runs: int = RUNS) -> dict[str, list[float]]:
    """Calls every rival once per run, run after run, so that a slow minute of the machine hits them all.

    A rival returns its figure (seconds per step, steps per second); each is called once before, unmeasured.
    """
    for rival in rivals.values():
        rival()
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(runs):
        for name, rival in rivals.items():
            found[name].append(rival())
    return found


def median_of(function: Callable[..., float], *series: Sequence[float]) -> float:
    """The median over runs of a figure that compares rivals within one run."""
    return statistics.median(function(*values) for values in zip(*series, strict=True))


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Parts:
    """Results of the parts of a long benchmark, kept beside its JSON: what is there is not done again."""

    def __init__(self, json_path: Path | None) -> None:
        """`json_path`: where the figures go; None keeps nothing."""
        self._path = json_path and json_path.with_suffix(".parts")
        there = self._path is not None and self._path.exists()
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if there and self._path else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON
        """The result of a part, made, with a line of progress, where it is missing."""
        if key not in self._found:
            self._found[key] = make()
            print(f"{key}: {self._found[key]}"[:120], flush=True)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                partial = self._path.with_suffix(".partial")
                partial.write_text(json.dumps(self._found, indent=1))
                partial.replace(self._path)
        return self._found[key]


def publish(
    title: str,
    figures: Mapping[str, float | str],
    bars: Mapping[str, str],
    details: Mapping[str, object],
    path: Path | None,
) -> None:
    """Prints a table of figures against their bars; with `path`, writes them and where they come from.

    A figure that this machine does not have is a few words that say so.
    """
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("bar", justify="right")
    for name, value in figures.items():
        table.add_row(name, _shown(value), bars.get(name, ""))
    console = Console()
    console.print(table)
    console.print(f"load average at the end: {os.getloadavg()[0]:.1f}", highlight=False)
    if path is None:
        return
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    record = {
        "title": title,
        "bars": dict(bars),
        **{name: v if isinstance(v, str) else float(f"{v:.6g}") for name, v in figures.items()},
        "details": details,
        "load_average": round(os.getloadavg()[0], 2),
        "provenance": asdict(Provenance.collect()) | {"command": command},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)
    console.print(f"figures are in {path}", highlight=False)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def draw(record: Mapping[str, Any]) -> str:
    """The page in Markdown of what `publish` wrote."""
    origin = record["provenance"]
    rows = [
        f"| `{name}` | {_shown(value)} | {record['bars'].get(name, '')} |"
        for name, value in record.items()
        if isinstance(value, float | str) and name not in ("load_average", "title")
    ]
    return "\n".join(
        [
            f"# {record['title']}",
            "",
            "| figure | measured | bar |",
            "|---|---|---|",
            *rows,
            "",
            f"Command: `{origin['command']}`, {origin['created']}, commit {origin['commit']}.",
            f"Machine: {origin['hardware']}; load average {record['load_average']:g} at the end.",
            "What each figure means stands at the head of the script; every run behind the medians is in the",
            "JSON next to this page.",
            "",
        ]
    )


def main() -> None:
    """Draws a page next to each JSON file."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.with_suffix(".md").write_text(
            draw(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
