"""A job: a list of whole episodes of one task, and running it to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.spaces import Observation
from mtrl.tasks import FixedStarts

from .episodes import STEP_FIELDS, Episodes, EpisodeSummary
from .lanes.lane import Lane
from .lanes.recorder import StepRecorder
from .policy import Acting, Policy, Version, generator_for


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
    acting: Acting
    copies: int
    """Environments stepped side by side; part of the job, because batch size can change rounding."""
    record: bool = False
    """Keep every observation and action, not only the summaries."""
    success_tail: int | None = None
    """Truncate an episode that many decisions after its first success; None plays to the end."""
    repeats: tuple[int, ...] = ()
    """One number per start that tells episodes of equal start apart; empty means all 0."""

    native: bool = False
    """Let the vector backend that `RuntimeConfig.backends` names play it, where it honours starts. For
    training alone: evaluation runs on the official environments."""

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
    incarnation: int = 0,
) -> JobResult:
    """Plays every episode of the job on a lane built with `schedule_of(job)`.

    `native_state` is the task's own state length, to which recorded states are cut. `on_decision`
    receives the number of decisions made by each lane step. `incarnation` of the policy's learner, as of
    `Version`.
    """
    queues = starts_of_copies(job)
    repeats = job.repeats or (0,) * len(job.starts)
    names = lane.task.name

    def fresh_generator(position: int) -> np.random.Generator:
        return generator_for(job.seed, names, job.starts[position], repeats[position])

    lane.begin()
    begun = [1] * len(queues)
    places = [_Place(queue[0], 0) for queue in queues]
    generators = [fresh_generator(place.position) for place in places]
    recorder = StepRecorder(lane, policy.extras, outcomes_only=not job.record)
    task_index = np.full(lane.copies, job.task_index, dtype=np.int64)
    state = policy.initial_state(lane.copies)
    ended = np.ones(lane.copies, dtype=bool)
    finished: dict[int, _Finished] = {}
    while (active := np.flatnonzero(lane.active)).size:
        action = policy.act(
            lane.observation, task_index, state, ended, acting=job.acting, generators=generators
        )
        state = action.state
        recorder.before_step(action, active if len(active) < lane.copies else None)
        lane.step(action.continuous, action.discrete)
        recorder.after_step()
        ended[:] = False
        for final in lane.finals:
            copy, place = final.copy, places[final.copy]
            summary = EpisodeSummary.of(
                recorder.column("reward", copy, place.first),
                recorder.column("success", copy, place.first),
                task_index=job.task_index,
                start=job.starts[place.position],
                repeat=repeats[place.position],
                terminated=bool(lane.terminated[copy]),
            )
            finished[place.position] = _Finished(summary, copy, place.first, final.observation)
            ended[copy] = True
            if lane.active[copy]:
                places[copy] = _Place(queues[copy][begun[copy]], recorder.decisions)
                begun[copy] += 1
                generators[copy] = fresh_generator(places[copy].position)
        if on_decision is not None:
            on_decision(len(active))
    ordered = [finished[position] for position in range(len(job.starts))]
    version = Version(incarnation, policy.version)
    episodes = _episodes(job, recorder, version, ordered, native_state) if job.record else None
    return JobResult(job, tuple(done.summary for done in ordered), episodes)


@dataclass(frozen=True)
class _Place:
    """Where one copy is: which of the job's starts it plays, and the recorder's decision that began it."""

    position: int
    first: int


@dataclass(frozen=True)
class _Finished:
    summary: EpisodeSummary
    copy: int
    first: int
    last_seen: Observation


def _episodes(
    job: EpisodeJob,
    recorder: StepRecorder,
    version: Version,
    ordered: list[_Finished],
    native_state: int | None,
) -> Episodes:
    """Cuts the finished episodes out of what was recorded, in the task's own sizes."""
    lane = recorder.lane
    lengths = np.array([done.summary.length for done in ordered])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def cut(name: str, width: int | None = None, last: str | None = None) -> npt.NDArray[Any]:
        """One array of all episodes [sum T_e, ...]; each with its last observation of the bucket `last`."""
        more = 0 if last is None else 1
        like = recorder.like(name) if width is None else recorder.like(name)[..., :width]
        flat = np.empty((int(offsets[-1]) + more * len(ordered), *like.shape[2:]), dtype=like.dtype)
        for e, done in enumerate(ordered):
            begin, end = int(offsets[e]) + more * e, int(offsets[e + 1]) + more * e
            recorder.copy_episode(name, done.copy, done.first, flat[begin:end])
            if last is not None:
                flat[end] = done.last_seen[last][..., :width] if width is not None else done.last_seen[last]
        recorder.release(name)
        return flat

    return Episodes(
        task_index=job.task_index,
        policy_version=version,
        summaries=tuple(done.summary for done in ordered),
        offsets=offsets,
        observations={
            bucket: cut(f"observations.{bucket}", native_state if bucket == "state" else None, bucket)
            for bucket in lane.task.observation.buckets
        },
        extras={extra.name: cut(f"extras.{extra.name}") for extra in recorder.extras},
        **{
            name: cut(name, lane.task.action.continuous if name == "continuous" else None)
            for name in STEP_FIELDS
        },
    )
