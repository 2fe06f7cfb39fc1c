"""Reading back what running a policy in real time wrote: latency histograms and episodes on a robot."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from mtrl.deployment.realtime.latency import Latency
from mtrl.errors import ConfigError, IntegrityError
from mtrl.evaluation.records import Record, read_record
from mtrl.reading import reading

DEPLOYMENT_SCHEMA = 1
"""Version of `deployments/*.json` that is read."""


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
    inference: Latency | None
    """Time per inference; None when there was none."""
    observation_to_command: Latency | None
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


def read_latency(path: Path) -> Latency:
    """Reads `latency.json`.

    The file is {"unit": "us", "samples_us_histogram": {"edges": [...], "counts": [...]}, "p50", "p99",
    "max", "calls"}; other fields are allowed and ignored.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: truncated or a wrong field; the message names file and field.
    """
    record = read_record(path)
    with reading(path, "a distribution of durations"):
        return _latency(record, "calls")


def read_deployment(path: Path) -> RealtimeEpisode:
    """Reads one file of `deployments/`; fields that no report shows are not looked at.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: truncated, another schema, or a wrong field; the message names file and field.
    """
    record = read_record(path)
    with reading(path, "an episode on a robot"):
        return _episode(record)


def _episode(record: Record) -> RealtimeEpisode:
    if record.fields.get("schema") != DEPLOYMENT_SCHEMA:
        record.refuse("schema", f"{DEPLOYMENT_SCHEMA}, the version this mtrl reads; deploy again")
    warnings = record.fields.get("warnings", [])
    if not isinstance(warnings, list):
        record.refuse("warnings", "a list of texts")
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
    if abs(record.number("deadline_miss_fraction") - episode.deadline_miss_fraction) > 1e-9:
        record.refuse("deadline_miss_fraction", f"deadline_misses / ticks = {episode.deadline_miss_fraction}")
    return episode


def _episode_latency(record: Record) -> Latency | None:
    return _latency(record, "samples") if record.integer("samples", minimum=0) else None


def _latency(record: Record, count: str) -> Latency:
    """`count` names the field that holds the number of calls."""
    if record.text("unit") != "us":
        record.refuse("unit", '"us" (microseconds)')
    histogram = record.record("samples_us_histogram")
    edges, counts = histogram.numbers("edges"), histogram.numbers("counts")
    if any(number != int(number) for number in counts):
        histogram.refuse("counts", "a list of whole numbers")
    p50, p99, longest = (record.number(name, minimum=0) for name in ("p50", "p99", "max"))
    calls = record.integer(count, minimum=1)
    problem = ""
    if len(edges) < 2 or edges[0] < 0 or not all(low < high for low, high in itertools.pairwise(edges)):
        problem = "edges must be at least two ascending numbers, the first at least 0"
    elif len(counts) != len(edges) - 1 or min(counts) < 0:
        bins = f"each of {len(edges) - 1} bins"
        problem = f"counts must be one number of at least 0 for {bins}; got {len(counts)}"
    elif sum(counts) != calls:
        problem = f"counts must add up to calls; got {sum(counts):g} and {calls}"
    elif not p50 <= p99 <= longest:
        problem = f"expected 0 <= p50 <= p99 <= max; got {p50}, {p99}, {longest}"
    if problem:
        raise IntegrityError(f"{record.path}: {record.place or 'latency'}: {problem}")
    return Latency(calls, p50, p99, longest, edges, tuple(map(int, counts)))
