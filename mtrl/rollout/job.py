"""A job: a list of whole episodes of one task, and running it to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.tasks import FixedStarts

from .episodes import STEP_FIELDS, Episodes, EpisodeSummary
from .lane import Lane
from .policy import Policy, generator_for


@dataclass(frozen=True)
class EpisodeJob:
    """Episodes to run: one per entry of `starts`.

    The outcome is a function of the job and the policy alone, so it may run on any worker, be
    repeated after a failure, and be merged in job order. A job never ends an episode on success,
    whatever its task says; `success_tail` truncates instead.
    """

    task_index: int
    starts: tuple[int, ...]
    seed: int
    explore: bool
    """Training noise on (experts: injected noise)."""
    copies: int
    """Environments stepped side by side; part of the job, because batch size can change rounding."""
    record: bool = False
    """Keep every observation and action, not only the summaries."""
    success_tail: int | None = None
    """Truncate an episode that many decisions after its first success; None plays to the end."""
    repeats: tuple[int, ...] = ()
    """One number per start that tells episodes of equal start apart; empty means all 0."""

    def __post_init__(self) -> None:
        if not self.starts:
            raise ConfigError("a job needs at least one start")
        if self.copies < 1:
            raise OutOfRangeError("job.copies", self.copies, "at least 1")
        if self.success_tail is not None and self.success_tail < 0:
            raise OutOfRangeError("job.success_tail", self.success_tail, "at least 0, or none")
        if self.repeats and len(self.repeats) != len(self.starts):
            raise ConfigError(
                f"repeats are given one per start; got {len(self.repeats)} for {len(self.starts)} starts"
            )


@dataclass(frozen=True)
class JobResult:
    """What came of a job, in the order of its starts."""

    job: EpisodeJob
    summaries: tuple[EpisodeSummary, ...]
    episodes: Episodes | None
    """Present when the job asked to record."""


class _Track:
    """Books of the episode that one copy is playing."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.rewards: list[float] = []
        self.successes: list[bool] = []
        self.rows: dict[str, list[npt.NDArray[np.generic]]] = {}
        self.steps: dict[str, list[object]] = {name: [] for name in STEP_FIELDS}


def starts_of_copies(job: EpisodeJob) -> list[list[int]]:
    """Positions in `job.starts` that each copy plays, in order: copy c takes c, c + copies, ..."""
    copies = min(job.copies, len(job.starts))
    return [list(range(copy, len(job.starts), copies)) for copy in range(copies)]


def schedule_of(job: EpisodeJob) -> FixedStarts:
    """The lane schedule that plays this job."""
    return FixedStarts([[job.starts[p] for p in queue] for queue in starts_of_copies(job)])


def run_job(
    job: EpisodeJob,
    lane: Lane,
    policy: Policy,
    native_state: int | None,
    on_decision: Callable[[int], None] | None = None,
) -> JobResult:
    """Plays every episode of the job on a lane built with `schedule_of(job)`.

    `native_state` is the task's own state length, to which recorded states are cut. `on_decision`
    receives the number of decisions made by each lane step.
    """
    queues = starts_of_copies(job)
    repeats = job.repeats or (0,) * len(job.starts)
    names = lane.task.name

    def fresh_generator(position: int) -> np.random.Generator:
        return generator_for(job.seed, names, job.starts[position], repeats[position])

    lane.begin()
    begun = [1] * len(queues)
    tracks = [_Track(queue[0]) for queue in queues]
    generators = [fresh_generator(track.position) for track in tracks]
    task_index = np.full(lane.copies, job.task_index, dtype=np.int64)
    state = policy.initial_state(lane.copies)
    ended = np.ones(lane.copies, dtype=bool)
    finished: dict[int, tuple[EpisodeSummary, _Track]] = {}
    while lane.active.any():
        active = [int(copy) for copy in np.flatnonzero(lane.active)]
        action = policy.act(
            lane.observation, task_index, state, ended, explore=job.explore, generators=generators
        )
        state = action.state
        if job.record:
            for copy in active:
                _record_before(tracks[copy], lane, copy)
        lane.step(action.continuous, action.discrete)
        finals = {final.copy: final.observation for final in lane.finals}
        ended[:] = False
        for copy in active:
            track = tracks[copy]
            track.rewards.append(float(lane.reward[copy]))
            track.successes.append(bool(lane.success[copy]))
            if job.record:
                label = action.continuous if action.label is None else action.label
                values = (
                    action.continuous[copy].copy(),
                    label[copy].copy(),
                    action.discrete[copy],
                    lane.reward[copy],
                    lane.terminated[copy],
                    lane.truncated[copy],
                    lane.success[copy],
                    action.log_probability[copy],
                )
                for name, value in zip(STEP_FIELDS, values, strict=True):
                    track.steps[name].append(value)
            if copy in finals:
                if job.record:
                    for bucket, row in finals[copy].items():
                        track.rows.setdefault(bucket, []).append(row)
                summary = _summary(job, track, repeats, bool(lane.terminated[copy]))
                finished[track.position] = (summary, track)
                ended[copy] = True
                if lane.active[copy]:
                    tracks[copy] = _Track(queues[copy][begun[copy]])
                    begun[copy] += 1
                    generators[copy] = fresh_generator(tracks[copy].position)
        if on_decision is not None:
            on_decision(len(active))
    ordered = [finished[position] for position in range(len(job.starts))]
    episodes = _flatten(job, lane, policy.version, ordered, native_state) if job.record else None
    return JobResult(job, tuple(summary for summary, _ in ordered), episodes)


def _record_before(track: _Track, lane: Lane, copy: int) -> None:
    for bucket, rows in lane.observation.items():
        if bucket in lane.task.observation.buckets:
            track.rows.setdefault(bucket, []).append(rows[copy].copy())


def _summary(job: EpisodeJob, track: _Track, repeats: tuple[int, ...], terminated: bool) -> EpisodeSummary:
    first = track.successes.index(True) + 1 if True in track.successes else None
    return EpisodeSummary(
        task_index=job.task_index,
        start=job.starts[track.position],
        repeat=repeats[track.position],
        episode_return=float(np.sum(track.rewards, dtype=np.float64)),
        length=len(track.rewards),
        success_any=first is not None,
        success_end=track.successes[-1],
        first_success=first,
        terminated=terminated,
        truncated=not terminated,
    )


def _flatten(
    job: EpisodeJob,
    lane: Lane,
    version: int,
    ordered: list[tuple[EpisodeSummary, _Track]],
    native_state: int | None,
) -> Episodes:
    lengths = [summary.length for summary, _ in ordered]
    width = lane.task.action.continuous
    kinds = {"discrete": np.int64, "terminated": np.bool_, "truncated": np.bool_, "success": np.bool_}
    steps: dict[str, npt.NDArray[Any]] = {
        name: np.array(
            [value for _, track in ordered for value in track.steps[name]], dtype=kinds.get(name, np.float32)
        )
        for name in STEP_FIELDS
    }
    for name in ("continuous", "label"):
        steps[name] = np.ascontiguousarray(steps[name][:, :width])
    observations = {
        bucket: np.stack([row for _, track in ordered for row in track.rows[bucket]])
        for bucket in lane.task.observation.buckets
    }
    if native_state is not None:
        observations["state"] = np.ascontiguousarray(observations["state"][:, :native_state])
    return Episodes(
        task_index=job.task_index,
        policy_version=version,
        summaries=tuple(summary for summary, _ in ordered),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        observations=observations,
        **steps,
    )
