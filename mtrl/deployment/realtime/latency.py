"""Distributions of durations, and how long one inference takes on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import IntegrityError
from mtrl.rollout import child_environment

from ..artefact.contents import open_artefact
from ..artefact.golden import GoldenInput, golden_inputs, read_golden
from ..artefact.policy import ArtefactPolicy
from .ticker import realtime_section

LONGEST_S = 10.0
"""Longest time of one repeat."""
_WARM_UP_CALLS = 500
_PROGRAM = "from mtrl.deployment.realtime.latency import main; main()"

EDGES_US: tuple[float, ...] = tuple(float(f"{edge:.4g}") for edge in np.geomspace(1.0, 1e6, 121))
"""Edges of every histogram: 20 bins per decade from 1 microsecond to 1 second."""


@dataclass(frozen=True)
class Latency:
    """A distribution of durations, all in microseconds."""

    samples: int
    """Number of durations."""
    p50: float
    """Median."""
    p99: float
    """99th percentile."""
    max: float
    """Largest."""
    edges: tuple[float, ...]
    """Histogram edges, ascending, one more than counts."""
    counts: tuple[int, ...]
    """Samples per bin; those outside the edges are counted in the first or last bin."""

    @staticmethod
    def of(seconds: npt.NDArray[np.float64]) -> Latency:
        """The distribution of `seconds` [N]; zeros when there are none."""
        if len(seconds) == 0:
            return Latency(0, 0.0, 0.0, 0.0, EDGES_US, (0,) * (len(EDGES_US) - 1))
        micros = seconds * 1e6
        edges = np.array(EDGES_US)
        counts, _ = np.histogram(np.clip(micros, edges[0], edges[-1]), bins=edges)
        p50, p99 = np.percentile(micros, (50, 99))
        return Latency(
            len(micros), float(p50), float(p99), float(micros.max()), EDGES_US, tuple(counts.tolist())
        )

    def as_json(self) -> dict[str, Any]:
        """For result files: percentiles and a histogram trimmed to its filled bins."""
        filled = np.flatnonzero(self.counts)
        first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        return {
            "unit": "us",
            "samples": self.samples,
            "p50": self.p50,
            "p99": self.p99,
            "max": self.max,
            "samples_us_histogram": {
                "edges": list(self.edges[first : last + 1]),
                "counts": list(self.counts[first:last]),
            },
        }


@dataclass(frozen=True)
class LatencyReport:
    """The median of several measurements, each of many calls on one thread."""

    p50_us: float
    """Median over the repeats of their medians, in microseconds."""
    p99_us: float
    """Median over the repeats of their 99th percentiles."""
    max_us: float
    """Median over the repeats of their maxima."""
    calls: int
    """Calls per repeat, of the shortest."""
    repeats: tuple[Latency, ...]
    """Every repeat."""
    median: Latency
    """The repeat whose 99th percentile is the median one; its histogram is what reports draw."""

    def as_json(self) -> dict[str, Any]:
        """For result files."""
        return {**self.median.as_json(), "p50": self.p50_us, "p99": self.p99_us, "max": self.max_us,
                "calls": self.calls, "repeats": len(self.repeats)}  # fmt: skip


def measure_latency(
    artefact: Path, calls: int = 20_000, repeats: int = 3, priority: int = 0
) -> LatencyReport:
    """Times `ArtefactPolicy.act` over the golden inputs: one thread, no garbage collection; for `priority`
    1 to 99 under SCHED_FIFO where the system grants it.

    One call copies the inputs in and returns one chunk. A repeat ends after `LONGEST_S` with the calls that
    were made: convolutions take milliseconds. `repeats` should be odd. With a priority the calls of
    all repeats should take less than a second: the system throttles whoever never sleeps.
    """
    contents = open_artefact(artefact)
    policy = ArtefactPolicy(contents)
    inputs = golden_inputs(read_golden(contents))
    with realtime_section(priority):
        _time(policy, inputs, _WARM_UP_CALLS)
        runs = sorted((_time(policy, inputs, calls) for _ in range(repeats)), key=lambda run: run.p99)
    return LatencyReport(
        p50_us=float(np.median([run.p50 for run in runs])),
        p99_us=float(np.median([run.p99 for run in runs])),
        max_us=float(np.median([run.max for run in runs])),
        calls=min(run.samples for run in runs),
        repeats=tuple(runs),
        median=runs[len(runs) // 2],
    )


def latency_apart(artefact: Path, calls: int = 20_000, repeats: int = 3, priority: int = 0) -> dict[str, Any]:
    """`LatencyReport.as_json` measured in a fresh process, as a controller runs.

    In a process that has trained or held a cluster, other threads and a warm allocator are measured too.
    Raises IntegrityError when the process fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(artefact.resolve()), *map(str, (calls, repeats, priority))],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    if done.returncode != 0:
        raise IntegrityError(f"the latency of {artefact} could not be measured:\n{done.stderr.strip()}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def main() -> None:
    """The process that `latency_apart` starts: its arguments in, JSON on standard output."""
    measured = measure_latency(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    json.dump(measured.as_json(), sys.stdout)


def _time(policy: ArtefactPolicy, inputs: list[GoldenInput], calls: int) -> Latency:
    seconds = np.zeros(calls)
    until, done = time.perf_counter_ns() + LONGEST_S * 1e9, 0
    while done < calls and time.perf_counter_ns() < until:
        state, task, z, pixels = inputs[done % len(inputs)]
        begun = time.perf_counter_ns()
        policy.act(state, task, z, pixels)
        seconds[done] = (time.perf_counter_ns() - begun) * 1e-9
        done += 1
    return Latency.of(seconds[:done])
