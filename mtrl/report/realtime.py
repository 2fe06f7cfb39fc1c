"""Reading back what running a policy in real time wrote: latency histograms and episodes on a robot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mtrl.errors import ConfigError, IntegrityError
from mtrl.evaluation.records import Record, read_record

DEPLOYMENT_SCHEMA = 1
"""Version of `deployments/*.json` that is read."""


@dataclass(frozen=True)
class LatencySummary:
    """Durations of many calls, in microseconds."""

    edges: tuple[float, ...]
    """Ascending bin edges in microseconds, at least two, the first at least 0."""
    counts: tuple[int, ...]
    """Calls per bin, one fewer than edges; they add up to `calls`."""
    p50: float
    p99: float
    maximum: float
    calls: int
    """Number of calls, at least 1."""

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) < 2 or self.edges[0] < 0 or not ascending:
            raise ConfigError("edges must be at least two ascending numbers, the first at least 0")
        if len(self.counts) != len(self.edges) - 1 or min(self.counts) < 0:
            raise ConfigError(
                f"counts must be one number of at least 0 for each of {len(self.edges) - 1} bins; "
                f"got {len(self.counts)}"
            )
        if self.calls < 1 or sum(self.counts) != self.calls:
            raise ConfigError(f"counts must add up to calls; got {sum(self.counts)} and {self.calls}")
        if not 0 <= self.p50 <= self.p99 <= self.maximum < math.inf:
            raise ConfigError(f"expected 0 <= p50 <= p99 <= max; got {self.p50}, {self.p99}, {self.maximum}")


@dataclass(frozen=True)
class RealtimeEpisode:
    """`deployments/<suite>-<task>.json`: one episode of an artefact on a robot, against the wall clock."""

    task: str
    artefact: str
    """Root hash of the artefact."""
    robot: str
    success: bool
    """Whether the success signal was ever on."""
    ticks: int
    """Observations that called for a command."""
    deadline_misses: int
    """Observations answered too late or never, at most `ticks`."""
    inference: LatencySummary | None
    """Time per inference; None when there was none."""
    observation_to_command: LatencySummary | None
    """From an observation's publication to its command's; None when none was answered."""
    warnings: tuple[str, ...] = ()
    """What a reader should know before trusting the figures."""

    def __post_init__(self) -> None:
        if self.ticks < 0 or not 0 <= self.deadline_misses <= self.ticks:
            raise ConfigError(
                f"episode of {self.task!r}: ticks is at least 0 and deadline_misses 0 to ticks; "
                f"got {self.ticks} and {self.deadline_misses}"
            )

    @property
    def deadline_miss_fraction(self) -> float:
        """Misses per tick, 0 to 1."""
        return self.deadline_misses / self.ticks if self.ticks else 0.0


def read_latency(path: Path) -> LatencySummary:
    """Reads `latency.json`.

    The file is {"unit": "us", "samples_us_histogram": {"edges": [...], "counts": [...]}, "p50", "p99",
    "max", "calls"}; other fields are allowed and ignored.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: truncated or a wrong field; the message names file and field.
    """
    return _latency(read_record(path), "calls")


def read_deployment(path: Path) -> RealtimeEpisode:
    """Reads one file of `deployments/`; fields that no report shows are not looked at.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: truncated, another schema, or a wrong field; the message names file and field.
    """
    record = read_record(path)
    if record.fields.get("schema") != DEPLOYMENT_SCHEMA:
        record.refuse("schema", f"{DEPLOYMENT_SCHEMA}, the version this mtrl reads; deploy again")
    warnings = record.fields.get("warnings", [])
    if not isinstance(warnings, list):
        record.refuse("warnings", "a list of texts")
    try:
        episode = RealtimeEpisode(
            task=record.text("task"),
            artefact=record.text("artefact"),
            robot=record.record("robot").text("name"),
            success=record.boolean("success"),
            ticks=record.integer("ticks"),
            deadline_misses=record.integer("deadline_misses"),
            inference=_episode_latency(record.record("latency")),
            observation_to_command=_episode_latency(record.record("observation_to_command")),
            warnings=tuple(str(warning) for warning in warnings),
        )
    except ConfigError as problem:
        raise IntegrityError(f"{path}: {problem}") from problem
    if abs(record.number("deadline_miss_fraction") - episode.deadline_miss_fraction) > 1e-9:
        record.refuse("deadline_miss_fraction", f"deadline_misses / ticks = {episode.deadline_miss_fraction}")
    return episode


def _episode_latency(record: Record) -> LatencySummary | None:
    return _latency(record, "samples") if record.integer("samples", minimum=0) else None


def _latency(record: Record, count: str) -> LatencySummary:
    """`count` names the field that holds the number of calls."""
    if record.text("unit") != "us":
        record.refuse("unit", '"us" (microseconds)')
    histogram = record.record("samples_us_histogram")
    counts = histogram.numbers("counts")
    if any(number != int(number) for number in counts):
        histogram.refuse("counts", "a list of whole numbers")
    try:
        return LatencySummary(
            edges=histogram.numbers("edges"),
            counts=tuple(int(number) for number in counts),
            p50=record.number("p50", minimum=0),
            p99=record.number("p99", minimum=0),
            maximum=record.number("max", minimum=0),
            calls=record.integer(count, minimum=1),
        )
    except ConfigError as problem:
        raise IntegrityError(f"{record.path}: {record.place or 'latency'}: {problem}") from problem
