"""Whole episodes on a pool of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Self

from mtrl.errors import EnvironmentFault
from mtrl.tasks import TaskSet

from ..job import EpisodeJob, JobResult
from ..policy import PolicySnapshot, Version
from ..runtime import FaultHandler, FaultLog, RuntimeConfig
from ..workers.backend import IN_FLIGHT, Backend, Finished, Lost
from ..workers.calls import Play

CachePlan = Callable[[int, bool], float]
"""(copies side by side in the largest job, whether the policy loads torch) -> MB of environments that a
worker may keep; raises ResourceError when memory does not suffice."""
ResultHandler = Callable[[JobResult], None]
LOOKAHEAD = 8
"""Jobs per worker that may be finished or running beyond the first unfinished one; bounds the results that
wait in memory for their turn."""


class PoolRollouts:
    """`Rollouts` on any back end; results equal those of `LocalRollouts`.

    Jobs are pure functions of job and policy, so the loss of a worker only repeats them.
    """

    def __init__(
        self,
        tasks: TaskSet,
        backend: Backend,
        config: RuntimeConfig,
        on_fault: FaultHandler | None = None,
        *,
        cache_plan: CachePlan = lambda copies, torch: float("inf"),
    ) -> None:
        """Owns and closes a started back end. A job's `config.attempts` faults quarantine its task."""
        self.quarantined: dict[int, str] = {}
        self.backend, self.tasks = backend, tasks
        self.attempts, self.cache_plan = config.attempts, cache_plan
        self.on_fault = on_fault or FaultLog()
        self.hosted: list[set[int]] = [set() for _ in backend.slots]
        """Tasks whose simulators each worker holds."""
        self._session: RolloutSession | None = None

    def run(
        self, jobs: Sequence[EpisodeJob], snapshot: PolicySnapshot, *, on_result: ResultHandler | None = None
    ) -> Iterator[JobResult]:
        """Yields results in job order; see `Rollouts.run`. One run, or session, at a time.

        Leaving the iterator early, an error, or Ctrl-C ends the workers that are still busy; the next run
        finds new ones. Errors of mtrl in a worker are raised here as themselves.
        """
        if jobs:
            with self.open(snapshot, on_result) as session:
                session.extend(jobs)
                yield from session.results_in_order()

    def open(self, snapshot: PolicySnapshot, on_result: ResultHandler | None = None) -> RolloutSession:
        """A session, in which jobs are submitted at any time and results taken as they arrive."""
        assert self._session is None or self._session.closed, "close the other run or session first"
        self._session = RolloutSession(self, snapshot, on_result)
        return self._session

    def close(self) -> None:
        """Ends the workers. May be called twice."""
        self.backend.close()


class RolloutSession:
    """Jobs under way; a context manager, which on leaving ends the workers that are still busy."""

    def __init__(self, pool: PoolRollouts, snapshot: PolicySnapshot, on_result: ResultHandler | None) -> None:
        """Publishes the policy; `on_result` is called as soon as a job finishes."""
        self.closed = False
        self._pool, self._backend, self._on_result = pool, pool.backend, on_result
        self._queue = JobQueue(pool.quarantined)
        self._copies, self._cache_megabytes = 0, 0.0
        self._torch = snapshot.needs_torch
        # earlier losses were not caused by a job of this session
        for event in self._backend.wait(0.0):
            if isinstance(event, Lost):
                self._pool.hosted[event.slot].clear()
        self.version = self._backend.publish(snapshot)
        """Version of the policy that newly submitted jobs use."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: EpisodeJob) -> None:
        """Adds a job; a worker that is free begins it at once, with the newest policy. Jobs of quarantined
        tasks are left out. Raises ResourceError when the job does not fit into memory.
        """
        self.extend([job])
        self._advance(0.0)
        self._assign()

    def take(self) -> JobResult | None:
        """The next result by arrival, waited for; None when no job is left. `policy_version` of recorded
        episodes is that of the policy that acted in them.
        """
        while (result := next(self._queue.finished(in_order=False), None)) is None and self._queue.jobs:
            self._advance(1.0)
        return result

    def republish(self, snapshot: PolicySnapshot) -> Version:
        """The policy of every job that is not yet submitted to a worker.

        Raises ResourceError when it is the first that needs torch and memory does not suffice for both.
        """
        if snapshot.needs_torch and not self._torch:
            if self._copies:
                self._cache_megabytes = self._pool.cache_plan(self._copies, True)
            self._torch = True
        self.version = self._backend.publish(snapshot)
        return self.version

    def extend(self, jobs: Sequence[EpisodeJob]) -> None:
        """Adds jobs, which begin when results are waited for."""
        copies = max((min(job.copies, len(job.starts)) for job in jobs), default=0)
        if copies > self._copies:
            self._copies, self._cache_megabytes = copies, self._pool.cache_plan(copies, self._torch)
        self._queue.extend(jobs)

    def results_in_order(self) -> Iterator[JobResult]:
        """The results of all jobs, in the order of submission."""
        while self._queue.jobs:
            self._advance(1.0)
            yield from self._queue.finished(in_order=True)

    def close(self) -> None:
        """Ends the workers that are still busy."""
        self.closed = True
        for index, slot in enumerate(self._backend.slots):
            if slot.calls:
                self._backend.replace(index, "the run was left")
                self._pool.hosted[index].clear()

    def _advance(self, seconds: float) -> None:
        self._assign()
        for event in self._backend.wait(seconds):
            if isinstance(event, Finished):
                self._collect(event)
            elif isinstance(event, Lost):
                self._lost(event)

    def _assign(self) -> None:
        """One job for each worker before any gets a second; near the end none does."""
        hosted = self._pool.hosted
        for depth in range(1, IN_FLIGHT + 1):
            if depth > 1 and len(self._queue.waiting) <= len(hosted):
                return
            for slot in self._backend.idle(depth):
                elsewhere = {k for other, held in enumerate(hosted) if other != slot for k in held}
                position = self._queue.choose(hosted[slot], elsewhere, len(hosted))
                if position is None:
                    return
                job = self._queue.jobs[position]
                hosted[slot].add(job.task_index)
                self._backend.submit(slot, position, Play(job, self._cache_megabytes))

    def _collect(self, event: Finished) -> None:
        if event.ticket not in self._queue.jobs:
            return  # dropped meanwhile
        if isinstance(event.error, EnvironmentFault):
            self._failed(event.ticket, event.error)
        elif event.error is not None:
            raise event.error
        else:
            assert isinstance(event.value, JobResult), "a job must return a JobResult"
            self._queue.results[event.ticket] = event.value
            if self._on_result is not None:
                self._on_result(event.value)

    def _lost(self, event: Lost) -> None:
        """The job that ran may be the cause; if not it is submitted again, as are those behind it."""
        self._pool.hosted[event.slot].clear()
        for position in event.waiting:
            self._queue.put_back(position)
        if event.running is not None and not event.is_cause:
            self._queue.put_back(event.running)
        elif event.running is not None and event.running in self._queue.jobs:
            job = self._queue.jobs[event.running]
            name = self._pool.tasks[job.task_index].name
            fault = EnvironmentFault(name, f"episodes from starts {list(job.starts)}", event.reason)
            self._failed(event.running, fault)

    def _failed(self, position: int, fault: EnvironmentFault) -> None:
        queue = self._queue
        queue.faults[position] += 1
        last = queue.faults[position] >= self._pool.attempts
        if last:
            self._pool.quarantined[queue.jobs[position].task_index] = fault.summary
            queue.drop_from(position)
        else:
            queue.put_back(position)
        self._pool.on_fault(fault, last)


class JobQueue:
    """Jobs by position, in the order of submission: waiting, running, finished, or dropped."""

    def __init__(self, quarantined: Container[int]) -> None:
        """Jobs of quarantined tasks are dropped at once."""
        self.jobs: dict[int, EpisodeJob] = {}
        """Jobs that are not yet delivered or dropped, in order."""
        self.waiting: list[int] = []
        self.results: dict[int, JobResult] = {}
        """Results that are not yet delivered."""
        self.faults: Counter[int] = Counter()
        self._quarantined = quarantined
        self._count = 0

    def extend(self, jobs: Iterable[EpisodeJob]) -> None:
        """Adds jobs behind the others."""
        for position, job in enumerate(jobs, self._count):
            self._count = position + 1
            if job.task_index not in self._quarantined:
                self.jobs[position] = job
                self.waiting.append(position)

    def finished(self, *, in_order: bool) -> Iterator[JobResult]:
        """Delivers results, in job order as far as there are any or in the order in which they finished."""
        while self.results:
            position = next(iter(self.jobs if in_order else self.results))
            if position not in self.results:
                return
            del self.jobs[position]
            yield self.results.pop(position)

    def choose(self, hosted: set[int], elsewhere: set[int], workers: int) -> int | None:
        """The next job for one of `workers`: of a task whose simulators it holds, then of one that no worker
        holds.
        """
        if not self.waiting:
            return None
        head = next(iter(self.jobs))
        near = [position for position in self.waiting if position < head + LOOKAHEAD * workers]

        def rank(position: int) -> int:
            task = self.jobs[position].task_index
            return 0 if task in hosted else 1 if task not in elsewhere else 2

        position = min(near, key=rank, default=None)
        if position is not None:
            self.waiting.remove(position)
        return position

    def put_back(self, position: int) -> None:
        """Puts a job back where it was."""
        if position in self.jobs:
            self.waiting = sorted([*self.waiting, position])

    def drop_from(self, position: int) -> None:
        """Drops this job and the later ones of its task: what a run in job order would leave out."""
        task = self.jobs[position].task_index
        for later in [p for p, job in self.jobs.items() if p >= position and job.task_index == task]:
            del self.jobs[later]
            self.results.pop(later, None)
        self.waiting = [p for p in self.waiting if p in self.jobs]
