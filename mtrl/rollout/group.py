"""A group: several whole episodes of one start, asked for and played as one job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, OutOfRangeError

from .episodes import Episodes
from .job import EpisodeJob, JobResult
from .policy import Acting


@dataclass(frozen=True)
class GroupRequest:
    """A group that an agent asks for."""

    task_index: int
    start: int
    size: int
    """Episodes, at least 2: an advantage compares them with each other."""
    acting: Acting
    seed: int
    """Of the policy's random numbers; each round of groups needs another, or it repeats the last one's."""
    success_tail: int | None = None
    """As of `EpisodeJob`."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise OutOfRangeError("group.size", self.size, "at least 2 episodes")

    def job(self) -> EpisodeJob:
        """The job that plays the group, on a vector backend where one honours starts."""
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
