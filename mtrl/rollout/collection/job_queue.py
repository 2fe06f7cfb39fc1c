"""Jobs that several workers play in any order."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from ..job import EpisodeJob, JobResult

LOOKAHEAD = 8
"""Jobs per worker that may be finished or running beyond the first unfinished one; bounds what waits in
the caller's memory for its turn."""


class JobQueue:
    """Jobs by position, in the order of submission: waiting, running, finished, or dropped."""

    def __init__(self, quarantined: Container[int]) -> None:
        """Jobs of quarantined tasks are dropped at once."""
        self.jobs: dict[int, EpisodeJob] = {}
        """Those that are not yet delivered or dropped, in order."""
        self.waiting: list[int] = []
        self.faults: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self._quarantined = quarantined
        self._results: dict[int, JobResult] = {}
        self._count = 0

    def extend(self, jobs: Iterable[EpisodeJob]) -> None:
        """Adds jobs behind the others."""
        for job in jobs:
            if job.task_index not in self._quarantined:
                self.jobs[self._count] = job
                self.waiting.append(self._count)
            self._count += 1

    def finish(self, position: int, result: JobResult) -> None:
        """Keeps a result until it is delivered."""
        self._results[position] = result

    def finished(self, *, in_order: bool) -> Iterator[JobResult]:
        """Delivers results: those whose turn it is, or in the order in which they finished."""
        while self._results:
            position = next(iter(self.jobs if in_order else self._results))
            if position not in self._results:
                return
            del self.jobs[position]
            yield self._results.pop(position)

    def choose(self, hosted: set[int], elsewhere: set[int], workers: int) -> int | None:
        """The next job for one of `workers`: of a task whose simulators it holds, then of nobody's."""
        if not self.waiting:
            return None
        head = next(iter(self.jobs))
        near = [position for position in self.waiting if position < head + LOOKAHEAD * workers]
        for preferred in (
            [p for p in near if self.jobs[p].task_index in hosted],
            [p for p in near if self.jobs[p].task_index not in elsewhere],
            near,
        ):
            if preferred:
                self.waiting.remove(preferred[0])
                return preferred[0]
        return None

    def put_back(self, position: int) -> None:
        """Puts a job back where it was."""
        if position in self.jobs:
            self.waiting = sorted([*self.waiting, position])

    def drop_from(self, position: int) -> None:
        """Drops this job and the later ones of its task: what a run in job order would leave out."""
        task = self.jobs[position].task_index
        for later in [p for p, job in self.jobs.items() if p >= position and job.task_index == task]:
            del self.jobs[later]
            self._results.pop(later, None)
        self.waiting = [p for p in self.waiting if p in self.jobs]
