"""Whole episodes on Ray."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack

from mtrl.errors import EnvironmentFault
from mtrl.rollout import EpisodeJob, FaultHandler, JobResult, PolicySnapshot, RuntimeConfig
from mtrl.tasks import TaskSet

from .actor import ActorFacts
from .cluster import await_processors, connect, disconnect
from .crew import IN_FLIGHT, Crew, Event, Finished, Lost
from .owned import owned_result
from .resources import ResourcePlan, memory_megabytes, preflight
from .weights import WeightPublisher

DEATHS = 3
"""Actors that may die over one job before the job's task is suspected: a simulator that crashes its
process would otherwise be retried for ever."""
LOOKAHEAD = 8
"""Jobs per actor that may be finished or running beyond the first unfinished one; bounds what waits in
the driver's memory for its turn."""


class _Board:
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

    def choose(self, hosted: set[int], elsewhere: set[int], window: int) -> int | None:
        """The next job for an actor: its own tasks first, whose simulators it holds; then nobody's."""
        near = [position for position in self.waiting if position < self.head + window]
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


class RayRollouts:
    """`mtrl.rollout.Rollouts` on Ray actors; results equal those of `LocalRollouts`.

    Jobs are pure functions of job and weights, so the loss of a process or node only repeats them. The
    weights travel once per publication, never with a job. One run at a time.
    """

    def __init__(self, tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> None:
        """Joins or starts Ray and starts the actors.

        Raises ResourceError, before it waits for anything, when processors or memory do not suffice.
        """
        self.quarantined: dict[int, str] = {}
        self._tasks, self._config, self._on_fault = tasks, config, on_fault
        self._running = False
        self._closing = ExitStack()
        if not config.address:
            preflight(tasks, config)
        with ExitStack() as undo:
            has = connect(config)
            undo.callback(disconnect)
            self._processors = has.processors
            self._megabytes = memory_megabytes() if has.megabytes is None else has.megabytes
            plan = self._plan(copies=1, torch=False)
            await_processors(plan.actors)
            self._weights = WeightPublisher()
            undo.callback(self._weights.close)
            self._crew = Crew(tasks, plan.actors, config.job_timeout_seconds)
            undo.callback(self._crew.close)
            self._closing = undo.pop_all()
        self._hosted: list[set[int]] = [set() for _ in range(plan.actors)]

    @property
    def replaced(self) -> int:
        """Actors that died or hung and were replaced so far."""
        return self._crew.replaced

    def facts(self) -> list[ActorFacts]:
        """Process, node and loaded modules of every actor that is up."""
        return self._crew.facts()

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        """Yields results in job order; see `mtrl.rollout.Rollouts.run`.

        Leaving the iterator early, an error, or Ctrl-C ends the actors that are still busy; the next
        run finds fresh ones. Errors of ours in an actor are raised here as themselves.
        """
        assert not self._running, "one run at a time: exhaust or close the other iterator first"
        if not jobs:
            return
        copies = max(min(job.copies, len(job.starts)) for job in jobs)
        plan = self._plan(copies=copies, torch=snapshot.kind not in ("expert", "random"))
        board = _Board(jobs, self.quarantined)
        self._weights.publish(snapshot)
        self._running = True
        try:
            while True:
                yield from board.next_results()
                if board.head == len(jobs):
                    return
                self._assign(board, plan.cache_megabytes)
                for event in self._crew.wait():
                    self._handle(event, board, on_result)
        finally:
            self._running = False
            self._crew.abandon()

    def close(self) -> None:
        """Ends actors and weight store, and a private cluster with them. May be called twice."""
        self._closing.close()

    def _plan(self, *, copies: int, torch: bool) -> ResourcePlan:
        """What the actors need, out of the memory that was free before they started."""
        return preflight(
            self._tasks,
            self._config,
            copies=copies,
            processor_count=self._processors,
            available_megabytes=self._megabytes,
            torch=torch,
        )

    def _assign(self, board: _Board, cache_megabytes: float) -> None:
        """One job for everyone before anyone gets a second; near the end nobody does."""
        window = LOOKAHEAD * len(self._crew)
        for depth in range(1, IN_FLIGHT + 1):
            if depth > 1 and len(board.waiting) <= len(self._crew):
                return
            for place in self._crew.idle_places(depth):
                elsewhere = {k for other, held in enumerate(self._hosted) if other != place for k in held}
                position = board.choose(self._hosted[place], elsewhere, window)
                if position is None:
                    return
                job = board.jobs[position]
                self._hosted[place].add(job.task_index)
                weights = self._weights
                self._crew.submit(
                    place, position, "play", job, cache_megabytes, weights.publication, weights.store
                )

    def _handle(self, event: Event, board: _Board, on_result: Callable[[JobResult], None] | None) -> None:
        if isinstance(event, Finished):
            if event.key in board.dropped:
                return
            reply = event.reply
            if reply.mistake is not None:
                raise reply.mistake.error()
            if reply.weights_lost:
                self._weights.restart()
                board.again(event.key)
            elif reply.fault is not None:
                self._failed(reply.fault, event.key, board, board.faults, self._config.attempts)
            elif reply.value is not None:
                result = owned_result(reply.value)
                board.results[event.key] = result
                if on_result is not None:
                    on_result(result)
        elif isinstance(event, Lost):
            self._hosted[event.place].clear()
            for position in event.waiting:
                board.again(position)
            if event.running is not None and event.running not in board.dropped:
                self._blame(event, event.running, board)

    def _blame(self, event: Lost, position: int, board: _Board) -> None:
        """A hang is the environment's fault; a death is no one's, until it keeps following one job."""
        job = board.jobs[position]
        when = f"episodes from starts {list(job.starts)}"
        fault = EnvironmentFault(self._tasks[job.task_index].name, when, event.reason)
        if event.hung:
            self._failed(fault, position, board, board.faults, self._config.attempts)
        elif board.deaths.get(position, 0) + 1 < DEATHS:
            board.deaths[position] = board.deaths.get(position, 0) + 1
            board.again(position)
        else:
            self._failed(fault, position, board, board.deaths, DEATHS)

    def _failed(
        self, fault: EnvironmentFault, position: int, board: _Board, counts: dict[int, int], allowed: int
    ) -> None:
        counts[position] = counts.get(position, 0) + 1
        last = counts[position] >= allowed
        if last:
            self.quarantined[board.jobs[position].task_index] = str(fault)
            board.drop_from(position)
        else:
            board.again(position)
        if self._on_fault is not None:
            self._on_fault(fault, last)
