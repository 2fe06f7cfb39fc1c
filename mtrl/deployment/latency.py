"""How long one inference takes on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .artefact import ArtefactPolicy, read_golden
from .durations import Latency
from .ticker import undisturbed

_WARM_UP_CALLS = 500


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
    """Calls per repeat."""
    repeats: tuple[Latency, ...]
    """Every repeat."""
    median: Latency
    """The repeat whose 99th percentile is the median one; its histogram is what reports draw."""

    def as_json(self) -> dict[str, Any]:
        """For result files."""
        return {**self.median.as_json(), "p50": self.p50_us, "p99": self.p99_us, "max": self.max_us,
                "calls": self.calls, "repeats": len(self.repeats)}  # fmt: skip


def measure_latency(artefact: Path, calls: int = 20_000, repeats: int = 3) -> LatencyReport:
    """Times `ArtefactPolicy.act` over the golden inputs, in turn: one thread, no collector, no priority.

    A call is what a controller pays: inputs copied in, one chunk out. `repeats` should be odd.
    """
    policy = ArtefactPolicy(artefact)
    golden = read_golden(artefact, policy.manifest)
    noise = golden.get("z")
    inputs = [
        (golden["state"][row], int(golden["task"][row]), None if noise is None else noise[row])
        for row in range(len(golden["chunk"]))
    ]
    with undisturbed():
        for call in range(_WARM_UP_CALLS):
            policy.act(*inputs[call % len(inputs)])
        runs = sorted((_time(policy, inputs, calls) for _ in range(repeats)), key=lambda run: run.p99)
    return LatencyReport(
        p50_us=float(np.median([run.p50 for run in runs])),
        p99_us=float(np.median([run.p99 for run in runs])),
        max_us=float(np.median([run.max for run in runs])),
        calls=calls,
        repeats=tuple(runs),
        median=runs[len(runs) // 2],
    )


def _time(
    policy: ArtefactPolicy,
    inputs: list[tuple[np.ndarray, int, np.ndarray | None]],
    calls: int,
) -> Latency:
    seconds = np.zeros(calls)
    count = len(inputs)
    for call in range(calls):
        state, task, z = inputs[call % count]
        begun = time.perf_counter_ns()
        policy.act(state, task, z)
        seconds[call] = (time.perf_counter_ns() - begun) * 1e-9
    return Latency.of(seconds)
