"""One trial: `mtrl train` in a process of its own, whose metrics are reported as it writes them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from mtrl.errors import IntegrityError
from mtrl.reading import parse_json

POLL_SECONDS = 1.0
"""Time between two looks at a run's metrics; Tune may stop a trial, or all, after each."""
LOG_TAIL = 12
"""Lines of a failed run's output that its error shows."""


class TrialRun(Trainable):
    """A run that Tune starts, reads and ends.

    Each `step` reports the next value of the metric that the run has written, or nothing yet, which the
    scheduler passes over. What the run wrote before it was interrupted is reported again at once, so that
    scheduler and searcher see after a resumption what they saw before it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """`config`: command, run, log, folder, metric, state and grace_seconds of the trial."""
        self._spec = config
        self._process: subprocess.Popen[bytes] | None = None
        self._step, self._count = -1, 0

    def step(self) -> dict[str, Any]:
        """The next value with its step and count, or whether the run is done."""
        ended = self._ended()
        found = self._next_value()
        if found is not None:
            self._step, value = found
            self._count += 1
            return {self._spec["metric"]: value, "at": self._step, "evaluations": self._count}
        if ended:
            return {"done": True}
        time.sleep(POLL_SECONDS)
        return {}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: the run keeps its own."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing."""

    def cleanup(self) -> None:
        """Lets the run save and end; one that takes longer than its grace is killed."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._spec["grace_seconds"])
        if process.poll() is None:
            process.kill()
            process.wait()

    def _ended(self) -> bool:
        """Whether no more metrics will come; starts the run where that was not done."""
        if self._spec["state"] != "running":
            return True
        if self._process is None:
            self._process = self._start()
        status = self._process.poll()
        if status:
            lines = Path(self._spec["log"]).read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError("\n".join([f"exit status {status}", *lines[-LOG_TAIL:]]))
        return status == 0

    def _start(self) -> subprocess.Popen[bytes]:
        # Ray blocks SIGINT in its processes, which a child would inherit
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            with Path(self._spec["log"]).open("ab") as log:
                return subprocess.Popen(
                    self._spec["command"],
                    cwd=self._spec["folder"],
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _next_value(self) -> tuple[int, float] | None:
        path = Path(self._spec["run"]) / "metrics.jsonl"
        if not path.exists():
            return None
        return next_value(path.read_bytes().split(b"\n")[:-1], self._spec["metric"], self._step)


def next_value(lines: Sequence[bytes], metric: str, after: int) -> tuple[int, float] | None:
    """(step, value) of the first record behind step `after` that holds the metric.

    `metric` is a name of docs/metrics.md; without the `/{task}` of one of a task it is the mean over them.
    """
    for line in lines:
        record: Any = parse_json(line)
        if not isinstance(record, dict):
            raise IntegrityError("metrics.jsonl holds a line that is no record")
        if record["step"] <= after:
            continue
        values = [
            float(value)
            for name, value in record.items()
            if (name == metric or name.startswith(f"{metric}/")) and value is not None
        ]
        if values and all(map(math.isfinite, values)):
            return int(record["step"]), sum(values) / len(values)
    return None
