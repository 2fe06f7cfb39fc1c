"""Metrics as lines of JSON: `metrics.jsonl` is equal for equal runs, `timing.jsonl` is the clock's part."""

from __future__ import annotations

import errno
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrl.disk_errors import disk_errors
from mtrl.errors import ConfigError, IntegrityError, MtrlWarning
from mtrl.ownership import require_ownership
from mtrl.reading import parse_json, reading

from .agent import MeasuresConflict


class JsonlTracker:
    """Appends one object a line: `{"step": 10, "loss": 0.25, ...}`, names sorted.

    A value that is not finite is written as null, since JSON has no number for it, and each such name is
    warned about once. Every line reaches the operating system at once; `state_dict` also flushes it to
    the disk. An interrupted run that is resumed through `load_state_dict` ends with the same bytes as
    one that was never interrupted.
    """

    name = "jsonl"

    def __init__(self, run_directory: Path) -> None:
        """Goes on in both files; a last line without an end, left by a killed run, is dropped."""
        with disk_errors(run_directory):
            run_directory.mkdir(parents=True, exist_ok=True)
        self._metrics = LineFile(run_directory / "metrics.jsonl")
        self._timing = LineFile(run_directory / "timing.jsonl")
        self._warned: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends to `metrics.jsonl`."""
        self._metrics.append(self._line(step, metrics))

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Appends to `timing.jsonl`."""
        self._timing.append(self._line(step, values))

    def close(self) -> None:
        """Nothing is held back; a record is in its file when `log` returns."""

    def state_dict(self) -> dict[str, Any]:
        """Bytes written so far, which are on the disk when this returns."""
        return {"metrics_bytes": self._metrics.flush(), "timing_bytes": self._timing.flush()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Drops every line written after `state`, all of them for an empty state.

        Raises IntegrityError when a file is shorter than it was or was edited so that no line ends there.
        """
        self._metrics.truncate(int(state.get("metrics_bytes", 0)))
        self._timing.truncate(int(state.get("timing_bytes", 0)))

    def _line(self, step: int, values: Mapping[str, float]) -> bytes:
        if "step" in values:
            raise ConfigError("no metric may be called 'step': that is the key of the step itself")
        record: dict[str, float | None] = {"step": int(step)}
        for key in sorted(values):
            number = float(values[key])
            record[key] = number if math.isfinite(number) else None
            if record[key] is None and key not in self._warned:
                self._warned.add(key)
                warnings.warn(
                    f"metric {key!r} is {number} at step {step}; it is recorded as null",
                    MtrlWarning,
                    stacklevel=3,
                )
        return (json.dumps(record, allow_nan=False) + "\n").encode()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file that may still be written to: a last line without an end is ignored.

    Raises IntegrityError naming the line that is no JSON object.
    """
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        with reading(path, f"a JSON object in line {number}"):
            record = parse_json(line)
            if not isinstance(record, dict):
                raise ValueError(f"got {type(record).__name__}")
        records.append(record)
    return records


class LineFile:
    """A file of whole lines: an append that fails leaves no part of its line. Open only while written to.

    Raises ResourceError where the disk refuses, and TakenOverError as `require_ownership` does.
    """

    def __init__(self, path: Path) -> None:
        """Goes on in the file, or makes it; a last line without an end is dropped."""
        self._path = path
        with disk_errors(path):
            require_ownership()
            path.touch()
            content = path.read_bytes()
            self._size = content.rfind(b"\n") + 1
            if self._size != len(content):
                os.truncate(path, self._size)

    def append(self, line: bytes) -> None:
        """Adds a line, its end included."""
        with disk_errors(self._path, "a line of "), self._path.open("ab", buffering=0) as file:
            require_ownership()
            written = file.write(line)
            if written != len(line):
                file.truncate(self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += written

    def flush(self) -> int:
        """Bytes of the file, which are on the disk when this returns."""
        with disk_errors(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())
        return self._size

    def truncate(self, size: int) -> None:
        """Drops what follows the first `size` bytes; raises IntegrityError where no line ends there."""
        content = self._path.read_bytes()[:size]
        if len(content) != size or (content and not content.endswith(b"\n")):
            raise IntegrityError(
                f"{self._path} is not as it was when the checkpoint was saved: "
                f"expected a line to end at byte {size}. "
                "Restore the file, or start the run again with --overwrite"
            )
        with disk_errors(self._path):
            require_ownership()
            os.truncate(self._path, size)
        self._size = size


class CosineTracker:
    """Appends to `cosines.jsonl` at every record what the agent has measured since the last:
    `{"step": 10, "part": "critic", "tasks": [K names], "cosines": [K][K]}`, null for pairs that were not
    measured. No file is made before something was. Goes back with a resumed run as metrics.jsonl does.
    """

    name = "cosines"

    def __init__(self, run_directory: Path, agent: MeasuresConflict, task_names: Sequence[str]) -> None:
        """Writes below `run_directory`; `task_names` by index."""
        self._path = run_directory / "cosines.jsonl"
        self._agent, self._tasks = agent, list(task_names)
        self._file = LineFile(self._path) if self._path.exists() else None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line for every part that was measured; the metrics are for the other trackers."""
        for part, cosines in sorted(self._agent.task_cosines().items()):
            rows = [[value if math.isfinite(value) else None for value in row] for row in cosines.tolist()]
            record = {"step": int(step), "part": part, "tasks": self._tasks, "cosines": rows}
            self._file = self._file or LineFile(self._path)
            self._file.append((json.dumps(record, allow_nan=False) + "\n").encode())

    def timing(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing: a clock has no cosines."""

    def close(self) -> None:
        """Nothing is held back."""

    def state_dict(self) -> dict[str, Any]:
        """Bytes written so far, which are on the disk when this returns."""
        return {"bytes": self._file.flush() if self._file is not None else 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Drops every line written after `state`, all of them for an empty state.

        Raises IntegrityError when the file is shorter than it was, or no line ends there.
        """
        size = int(state.get("bytes", 0))
        if size or self._file is not None:
            self._file = self._file or LineFile(self._path)
            self._file.truncate(size)
