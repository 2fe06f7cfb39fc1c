"""Whole episodes on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from mtrl.errors import EnvironmentFault
from mtrl.rollout import EpisodeJob, FaultHandler, JobBoard, JobResult, PolicySnapshot, RuntimeConfig
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
        board = JobBoard(jobs, self.quarantined)
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

    def _assign(self, board: JobBoard, cache_megabytes: float) -> None:
        """One job for everyone before anyone gets a second; near the end nobody does."""
        for depth in range(1, IN_FLIGHT + 1):
            if depth > 1 and len(board.waiting) <= len(self._crew):
                return
            for place in self._crew.idle_places(depth):
                elsewhere = {k for other, held in enumerate(self._hosted) if other != place for k in held}
                position = board.choose(self._hosted[place], elsewhere, len(self._crew))
                if position is None:
                    return
                job = board.jobs[position]
                self._hosted[place].add(job.task_index)
                weights = self._weights
                self._crew.submit(
                    place, position, "play", job, cache_megabytes, weights.publication, weights.store
                )

    def _handle(self, event: Event, board: JobBoard, on_result: Callable[[JobResult], None] | None) -> None:
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

    def _blame(self, event: Lost, position: int, board: JobBoard) -> None:
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
        self, fault: EnvironmentFault, position: int, board: JobBoard, counts: dict[int, int], allowed: int
    ) -> None:
        counts[position] = counts.get(position, 0) + 1
        last = counts[position] >= allowed
        if last:
            self.quarantined[board.jobs[position].task_index] = fault.summary
            board.drop_from(position)
        else:
            board.again(position)
        if self._on_fault is not None:
            self._on_fault(fault, last)
