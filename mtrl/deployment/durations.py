"""Latency samples in a form that is small, mergeable and drawable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
            len(micros), float(p50), float(p99), float(micros.max()), EDGES_US, tuple(int(c) for c in counts)
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
