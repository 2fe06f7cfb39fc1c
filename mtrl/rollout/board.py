"""The jobs of one run while several workers play them in any order."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from .job import EpisodeJob, JobResult

LOOKAHEAD = 8
"""Jobs per worker that may be finished or running beyond the first unfinished one; bounds what waits in
the caller's memory for its turn."""


class JobBoard:
    """Jobs of one run by position: waiting, running, finished, or dropped."""

    def __init__(self, jobs: Sequence[EpisodeJob], quarantined: Container[int]) -> None:
        """Jobs of quarantined tasks are dropped from the beginning."""
        self.jobs = jobs
        self.dropped = {p for p, job in enumerate(jobs) if job.task_index in quarantined}
        self.waiting = [p for p in range(len(jobs)) if p not in self.dropped]
        self.results: dict[int, JobResult] = {}
        self.faults: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.head = 0
        """First position not yet handed to the caller."""

    def next_results(self) -> Iterator[JobResult]:
        """Results whose turn it is."""
        while self.head in self.dropped or self.head in self.results:
            position = self.head
            self.head += 1
            result = self.results.pop(position, None)
            if position not in self.dropped and result is not None:
                yield result

    def choose(self, hosted: set[int], elsewhere: set[int], workers: int) -> int | None:
        """The next job for one of `workers`: of a task whose simulators it holds, then of nobody's."""
        near = [position for position in self.waiting if position < self.head + LOOKAHEAD * workers]
        for wanted in (
            [p for p in near if self.jobs[p].task_index in hosted],
            [p for p in near if self.jobs[p].task_index not in elsewhere],
            near,
        ):
            if wanted:
                self.waiting.remove(wanted[0])
                return wanted[0]
        return None

    def again(self, position: int) -> None:
        """Puts a job back where it was."""
        if position not in self.dropped:
            self.waiting = sorted([*self.waiting, position])

    def drop_from(self, position: int) -> None:
        """Drops this job and the later ones of its task: what a run in job order would leave out."""
        task = self.jobs[position].task_index
        self.dropped |= {p for p in range(position, len(self.jobs)) if self.jobs[p].task_index == task}
        self.waiting = [p for p in self.waiting if p not in self.dropped]
