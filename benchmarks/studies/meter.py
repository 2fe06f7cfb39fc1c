"""Processor time of a training, which a loaded machine does not stretch as it does the clock's."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mtrl.training import read_jsonl

LEAST_INTERVALS = 3
"""Intervals that a cost per step is the median of, at least."""


class Meter:
    """Notes how much CPU time a process has used whenever its metrics file grows.

    Lines of the note: the last `step` in the metrics, CPU `seconds` since the process began, and its
    `session`, to find intervals across an interruption.
    """

    def __init__(self, note: Path, metrics: Path, process: int) -> None:
        """Nothing is read yet; `process` is the id of the training's process."""
        self._note, self._metrics, self._process = note, metrics, process
        self._size = metrics.stat().st_size if metrics.exists() else 0

    def look(self) -> None:
        """To be called often; costs a glance at the file's size."""
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        if size == self._size:
            return
        self._size = size
        seconds = processor_seconds(self._process)
        step = _last_step(self._metrics)
        if seconds is None or step is None:
            return
        record = {"session": self._process, "step": step, "seconds": round(seconds, 2)}
        with self._note.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def processor_seconds(process: int) -> float | None:
    """User and system time of a process with all its threads, s; None when it is gone or elsewhere kept."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # the name in parentheses may hold spaces; user and system ticks are fields 14 and 15 of the whole
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_curve(note: Path, records: Sequence[Mapping[str, Any]]) -> tuple[float, list[dict[str, float]]]:
    """(CPU minutes of the whole training, one entry per evaluation in the metrics `records`).

    Minutes are steps times the median cost of a step over the intervals between records in which nothing
    was evaluated and nothing interrupted, so that evaluating costs nothing. (0, []) when too few were noted.
    """
    noted = read_jsonl(note) if note.exists() else []
    judged = {int(r["step"]): r for r in records if any(name.startswith("evaluation_") for name in r)}
    learning = {int(r["step"]) for r in records if r.get("updates", 1) > 0}
    costs = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in pairwise(noted)
        if before["session"] == after["session"]
        and before["step"] < after["step"]
        and int(before["step"]) in learning
        and not any(before["step"] < step <= after["step"] for step in judged)
    ]
    if len(costs) < LEAST_INTERVALS or not records:
        return 0.0, []
    minutes = statistics.median(costs) / 60
    curve = [
        {"step": float(step), "minutes": round(minutes * step, 3)}
        | {name: float(value) for name, value in record.items() if name.startswith("evaluation_")}
        for step, record in sorted(judged.items())
    ]
    return round(minutes * max(int(r["step"]) for r in records), 2), curve


def _last_step(metrics: Path) -> int | None:
    """Step of the last whole line; None before there is one."""
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 65_536))
        lines = file.read().split(b"\n")[:-1]
    return int(json.loads(lines[-1])["step"]) if lines else None
