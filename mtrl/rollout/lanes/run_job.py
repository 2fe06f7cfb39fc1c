"""Whole episodes on a lane: runs a job to its end and cuts its episodes out of the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation
from mtrl.tasks import FixedStarts

from ..episodes import STEP_FIELDS, Episodes, EpisodeSummary
from ..job import BrokenJobEpisode, EpisodeJob, JobResult
from ..policy import Policy, Version, generator_for
from .lane import Lane
from .recorder import StepRecorder


def starts_of_copies(job: EpisodeJob) -> list[list[int]]:
    """Positions in `job.starts` that each copy plays, in order: copy c takes c, c + copies, ..."""
    copies = min(job.copies, len(job.starts))
    return [list(range(copy, len(job.starts), copies)) for copy in range(copies)]


def schedule_of(job: EpisodeJob) -> FixedStarts:
    """The schedule of starts of a lane that runs this job."""
    return FixedStarts([[job.starts[p] for p in queue] for queue in starts_of_copies(job)])


def run_job(
    job: EpisodeJob,
    lane: Lane,
    policy: Policy,
    on_decision: Callable[[int], None] | None = None,
    incarnation: int = 0,
) -> JobResult:
    """Plays every episode of the job on a lane built with `schedule_of(job)`.

    `on_decision` receives the number of decisions made by each lane step. `incarnation` of the policy's
    learner, as of `Version`.
    """
    repeats = job.repeats or (0,) * len(job.starts)
    upcoming = [iter(queue) for queue in starts_of_copies(job)]
    # of each copy the position in the job, and the recorder's decision that began it
    playing = [(next(positions), 0) for positions in upcoming]

    def generator_of(position: int) -> np.random.Generator:
        return generator_for(job.seed, lane.task.name, job.starts[position], repeats[position])

    generators = [generator_of(position) for position, _ in playing]
    recorder = StepRecorder(lane, policy.extras, outcomes_only=not job.record)
    task_index = np.full(lane.copies, job.task_index, dtype=np.int64)
    state = policy.initial_state(lane.copies)
    ended = np.ones(lane.copies, dtype=bool)
    finished: dict[int, _Finished] = {}
    broken: dict[int, BrokenJobEpisode] = {}

    def begin_next(copy: int) -> None:
        ended[copy] = True
        position = next(upcoming[copy], None)
        if position is not None:
            playing[copy], generators[copy] = (position, recorder.decisions), generator_of(position)

    def keep_broken() -> None:
        for one in lane.broken:
            position = playing[one.copy][0]
            broken[position] = BrokenJobEpisode.of(one.fault, job.starts[position], repeats[position])
            begin_next(one.copy)

    lane.begin()
    keep_broken()
    while (active := np.flatnonzero(lane.active)).size:
        action = policy.act(
            lane.observation, task_index, state, ended, acting=job.acting, generators=generators
        )
        state = action.state
        recorder.before_step(action, active if len(active) < lane.copies else None)
        lane.step(action.continuous, action.discrete)
        recorder.after_step()
        ended[:] = False
        for final in lane.final_observations:
            copy, (position, first) = final.copy, playing[final.copy]
            summary = EpisodeSummary.of(
                recorder.column("reward", copy, first),
                recorder.column("success", copy, first),
                task_index=job.task_index,
                start=job.starts[position],
                repeat=repeats[position],
                terminated=bool(lane.terminated[copy]),
            )
            finished[position] = _Finished(summary, copy, first, final.observation)
            begin_next(copy)
        keep_broken()
        if on_decision is not None:
            on_decision(len(active))
    ordered = [finished[position] for position in sorted(finished)]
    summaries, version = tuple(done.summary for done in ordered), Version(incarnation, policy.version)
    episodes = _episodes(job, recorder, version, ordered) if job.record and ordered else None
    return JobResult(job, summaries, episodes, tuple(broken[p] for p in sorted(broken)))


@dataclass(frozen=True)
class _Finished:
    summary: EpisodeSummary
    copy: int
    first: int
    """The recorder's decision that began it."""
    last_observation: Observation


def _episodes(
    job: EpisodeJob, recorder: StepRecorder, version: Version, ordered: list[_Finished]
) -> Episodes:
    """Cuts the finished episodes out of the recording, in the task's own sizes."""
    task = recorder.lane.task
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
                row = done.last_observation[last]
                flat[end] = row if width is None else row[..., :width]
        recorder.release(name)
        return flat

    own = {"state": task.observation.state, "continuous": task.action.continuous}
    return Episodes(
        task_index=job.task_index,
        policy_version=version,
        summaries=tuple(done.summary for done in ordered),
        offsets=offsets,
        observations={b: cut(f"observations.{b}", own.get(b), b) for b in task.observation.buckets},
        extras={extra.name: cut(f"extras.{extra.name}") for extra in recorder.extras},
        **{name: cut(name, own.get(name)) for name in STEP_FIELDS},
    )
