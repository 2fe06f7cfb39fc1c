"""Whole episodes in worker processes of this machine."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from mtrl.errors import EnvironmentFault, ResourceError
from mtrl.tasks import TaskSet

from .board import JobBoard
from .job import EpisodeJob, JobResult
from .policy import PolicySnapshot
from .runtime import FaultHandler, FaultLog, RuntimeConfig
from .worker_link import Answer, Inbox, WorkerLink, late
from .worker_wire import describe_job, rebuild_error, rebuild_result

IN_FLIGHT = 2
"""Jobs per process: one that is played, and one that waits so that the process never does."""


class _Place:
    """One process of the pool, whichever it is at the moment."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.told: PolicySnapshot | None = None
        self.positions: deque[int] = deque()
        self.hosted: set[int] = set()
        self.up = False
        """Whether the process has answered yet."""
        self.clock = 0.0
        """When the first job began to be played, by time.monotonic."""


class WorkerRollouts:
    """`Rollouts` on `runtime.workers` processes; results equal those of `LocalRollouts`.

    Jobs are pure functions of job and policy, so a process that dies only costs their repetition. One
    run at a time.
    """

    def __init__(self, tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> None:
        """Starts the processes; they load their packages while the caller goes on."""
        self.quarantined: dict[int, str] = {}
        self.replaced = 0
        """Processes that died or hung and were replaced so far."""
        self._tasks, self._config = tasks, config
        self._on_fault = on_fault or FaultLog()
        self._inbox: Inbox = queue.Queue()
        self._places: list[_Place] = []
        try:
            for _ in range(config.workers):
                self._places.append(_Place(self._start()))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(place.link.pid for place in self._places)

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        """Yields results in job order; see `Rollouts.run`.

        Leaving the iterator early, an error, or Ctrl-C ends the processes that are still busy.
        """
        board = JobBoard(jobs, self.quarantined)
        for place in self._places:
            # no job of this run is to blame for what happened since the last one
            if place.link.has_ended:
                self._replace(place)
        try:
            while True:
                yield from board.next_results()
                if board.head == len(jobs):
                    return
                self._assign(board, snapshot)
                self._hear(board, on_result)
        finally:
            for place in self._places:
                if place.positions:
                    self._replace(place)

    def close(self) -> None:
        """Ends the processes. May be called twice."""
        for place in self._places:
            place.link.hang_up()
        for place in self._places:
            place.link.close()

    def _start(self) -> WorkerLink:
        return WorkerLink(self._tasks, self._config.backends, self._inbox)

    def _assign(self, board: JobBoard, snapshot: PolicySnapshot) -> None:
        """One job for everyone before anyone gets a second; near the end nobody does."""
        for depth in range(1, IN_FLIGHT + 1):
            if depth > 1 and len(board.waiting) <= len(self._places):
                return
            for place in (place for place in self._places if len(place.positions) < depth):
                elsewhere = {k for other in self._places if other is not place for k in other.hosted}
                position = board.choose(place.hosted, elsewhere, len(self._places))
                if position is None:
                    return
                job = board.jobs[position]
                if place.told is None or not place.told.same_as(snapshot):
                    place.link.publish(snapshot)
                    place.told = snapshot
                if not place.positions:
                    place.clock = time.monotonic()
                place.hosted.add(job.task_index)
                place.positions.append(position)
                place.link.order({"order": "play", "job": describe_job(job)})

    def _hear(self, board: JobBoard, on_result: Callable[[JobResult], None] | None) -> None:
        """Takes in one answer, or finds that a process is late."""
        limit = self._config.job_timeout_seconds
        busy = [place for place in self._places if place.positions]
        first = min(busy, key=lambda place: place.clock)
        try:
            link, answer = self._inbox.get(timeout=max(0.01, first.clock + limit - time.monotonic()))
        except queue.Empty:
            self._lost(first, board, late(limit))
            return
        place = next((place for place in self._places if place.link is link), None)
        if place is None:
            return  # the last words of a process that was replaced
        if answer is None:
            self._lost(place, board, link.ending())
        else:
            self._answered(place, answer, board, on_result)

    def _answered(
        self,
        place: _Place,
        answer: Answer,
        board: JobBoard,
        on_result: Callable[[JobResult], None] | None,
    ) -> None:
        header, arrays = answer
        if header["reply"] == "ready":
            # loading its packages is no job's time
            place.up, place.clock = True, time.monotonic()
            return
        if header.get("order") == "tasks":
            raise rebuild_error(header)
        position = place.positions.popleft()
        place.clock = time.monotonic()
        if header["reply"] == "result":
            if position not in board.dropped:
                result = rebuild_result(board.jobs[position], header, arrays)
                board.results[position] = result
                if on_result is not None:
                    on_result(result)
            return
        error = rebuild_error(header)
        if not isinstance(error, EnvironmentFault):
            raise error
        self._failed(error, position, board)

    def _lost(self, place: _Place, board: JobBoard, reason: str) -> None:
        """The job that was played is blamed, those behind it are given out again."""
        if not place.up:
            # its packages cannot be loaded, and a successor fares no better
            raise ResourceError(f"a worker process could not start: {reason}")
        running, waiting = place.positions[0] if place.positions else None, list(place.positions)[1:]
        self._replace(place)
        for position in waiting:
            board.again(position)
        if running is not None and running not in board.dropped:
            job = board.jobs[running]
            when = f"episodes from starts {list(job.starts)}"
            name = self._tasks[job.task_index].name
            self._failed(EnvironmentFault(name, when, reason), running, board)

    def _failed(self, fault: EnvironmentFault, position: int, board: JobBoard) -> None:
        if position in board.dropped:
            return
        board.faults[position] = board.faults.get(position, 0) + 1
        last = board.faults[position] >= self._config.attempts
        if last:
            self.quarantined[board.jobs[position].task_index] = fault.summary
            board.drop_from(position)
        else:
            board.again(position)
        self._on_fault(fault, last)

    def _replace(self, place: _Place) -> None:
        self.replaced += 1
        place.link.close()
        place.link, place.told, place.up = self._start(), None, False
        place.positions.clear()
        place.hosted.clear()
