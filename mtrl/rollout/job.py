"""Jobs, the whole episodes that workers are given, and groups, the episodes of one start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, EnvironmentFault, OutOfRangeError

from .episodes import Episodes, EpisodeSummary
from .policy import Acting


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
    """One number per start that distinguishes episodes of equal start; empty means all 0."""
    native: bool = False
    """Let the vector backend that `RuntimeConfig.backends` names play it, where it can reset to a given
    start. For training alone: evaluation runs on the official environments."""
    keep_going: bool = False
    """A fault ends its episode alone, which `JobResult.broken` lists, and the copy goes on with a new
    environment; otherwise the job fails. On official environments."""

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
class BrokenJobEpisode:
    """An episode of a job that a fault ended."""

    start: int
    repeat: int
    when: str
    """The phase, as in `EnvironmentFault`."""
    detail: str
    """A traceback or the broken rule, as in `EnvironmentFault`."""

    @staticmethod
    def of(fault: EnvironmentFault, start: int, repeat: int) -> BrokenJobEpisode:
        """The episode that a fault ended."""
        return BrokenJobEpisode(start, repeat, fault.when, fault.detail)

    def fault(self, task: str) -> EnvironmentFault:
        """The fault; `task` is the task's name."""
        return EnvironmentFault(task, self.when, self.detail)


@dataclass(frozen=True)
class JobResult:
    """The episodes of a job, in the order of its starts."""

    job: EpisodeJob
    summaries: tuple[EpisodeSummary, ...]
    """Of the episodes that were played to their end."""
    episodes: Episodes | None
    """Present where the job records and an episode was played to its end."""
    broken: tuple[BrokenJobEpisode, ...] = ()
    """In the order of their starts; empty unless the job keeps going after faults."""


@dataclass(frozen=True)
class GroupRequest:
    """A group that an agent requests."""

    task_index: int
    start: int
    size: int
    """Episodes, at least 2: an advantage compares them with each other."""
    acting: Acting
    seed: int
    """Seed of the policy's random numbers; each round of groups needs another one to differ from the last."""
    success_tail: int | None = None
    """Decisions after the first success until truncation, as in `EpisodeJob`."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise OutOfRangeError("group.size", self.size, "at least 2 episodes")

    def job(self) -> EpisodeJob:
        """The job that plays the group, on a vector backend where one can reset to a given start."""
        return EpisodeJob(
            task_index=self.task_index,
            starts=(self.start,) * self.size,
            seed=self.seed,
            acting=self.acting,
            copies=self.size,
            record=True,
            success_tail=self.success_tail,
            repeats=tuple(range(self.size)),
            native=True,
        )


@dataclass
class EpisodeGroup(Episodes):
    """G whole episodes of one (task, start): the unit of group-relative advantages.

    A group is made by one worker and never split, so that the advantage is computed without a join.
    """

    def __post_init__(self) -> None:
        starts = {summary.start for summary in self.summaries}
        if len(starts) != 1:
            raise ValueError(f"a group has one start; got {sorted(starts)}")

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """[G], undiscounted."""
        return np.array([summary.episode_return for summary in self.summaries])

    @staticmethod
    def of(result: JobResult) -> EpisodeGroup:
        """The episodes of a job as a group.

        Raises ConfigError for a job that did not record, ValueError when they do not share a start.
        """
        if result.episodes is None:
            raise ConfigError("a group is made of recorded episodes; set record=True in its EpisodeJob")
        return EpisodeGroup(**result.episodes.__dict__)
