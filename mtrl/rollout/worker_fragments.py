"""Continuous collection in worker processes of this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mtrl.errors import EnvironmentFault, ResourceError
from mtrl.tasks import TaskSet

from .backends import require_backends
from .balance import balance, completed
from .collection import CollectionConfig, LaneBooks
from .fragment import Fragment
from .policy import PolicySnapshot
from .runtime import FaultHandler, RuntimeConfig
from .worker import LaneAssignment
from .worker_link import WorkerGone, WorkerLink
from .worker_wire import describe_share, rebuild_error, rebuild_fragment


class WorkerFragments:
    """`Fragments` from `runtime.workers` processes, each hosting lanes dealt by their measured cost.

    Every lane has one fragment under way while the learner works, so a fragment's policy is at most one
    round old. Fragments come round after round in the order of the lanes, whichever process is faster:
    with the same deal of lanes, equal seeds give equal fragments. A process that dies or hangs is
    replaced and its lanes begin afresh; an environment that fails costs its own lane only.
    """

    def __init__(
        self,
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        on_fault: FaultHandler | None = None,
        step_seconds: Sequence[float] | None = None,
    ) -> None:
        """Starts the processes and, unless `step_seconds` [K] says it, measures a decision of each task."""
        require_backends(tasks, config.backends)
        self._tasks, self._config, self._collection = tasks, config, collection
        self._snapshot = snapshot
        self._books = LaneBooks(seed, config.attempts, on_fault)
        self.quarantined = self._books.quarantined
        self._workers: list[WorkerLink] = []
        self.replaced = 0
        """Processes that died or hung and were replaced so far."""
        try:
            for _ in range(config.workers):
                self._workers.append(WorkerLink(tasks, config.backends))
            for worker in self._workers:
                self._ready(worker)
            self.step_seconds = list(step_seconds) if step_seconds is not None else self._measure()
            dealt = balance([collection.copies] * len(tasks), config.workers, self.step_seconds)
        except BaseException:
            self.close()
            raise
        self._home = {share: place for place, shares in enumerate(dealt) for share in shares}
        self._order = sorted(self._home, key=lambda share: (share.task_index, share.first_copy))
        self._waiting: list[deque[LaneAssignment]] = [deque() for _ in self._workers]
        self._kept: dict[LaneAssignment, Fragment] = {}
        self._told: list[PolicySnapshot | None] = [None] * len(self._workers)
        self._open: set[LaneAssignment] = set()
        self._turn = 0
        self._begun = False

    @property
    def lanes(self) -> tuple[tuple[LaneAssignment, ...], ...]:
        """The lanes of each worker process."""
        return tuple(
            tuple(share for share in self._order if self._home[share] == place)
            for place in range(len(self._workers))
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker.pid for worker in self._workers)

    def publish(self, snapshot: PolicySnapshot) -> None:
        """New weights, used by every fragment that is asked for from now on."""
        self._snapshot = snapshot

    def stream(self) -> Iterator[Fragment]:
        """Fragments of all lanes in turn; may be left and called again, and goes on where it was."""
        if not self._begun:
            self._begun = True
            for share in self._order:
                self._request(share)
        while len(self.quarantined) < len(self._tasks):
            share = self._order[self._turn]
            self._turn = (self._turn + 1) % len(self._order)
            if share.task_index in self.quarantined:
                continue
            fragment = self._take(share)
            if fragment is not None:
                self._request(share)
                yield fragment

    def close(self) -> None:
        """Ends the processes. May be called twice."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.close()

    def _ready(self, worker: WorkerLink) -> None:
        try:
            header, _ = worker.answer(self._config.job_timeout_seconds)
        except WorkerGone as gone:
            raise ResourceError(f"a worker process could not start: {gone}") from gone
        if header["reply"] != "ready":
            raise rebuild_error(header)

    def _measure(self) -> list[float]:
        """Seconds of one decision of one copy of each task [K], measured side by side as they will run.

        A task that fails, or whose process dies, is taken for a usual one.
        """
        places, count = len(self._workers), len(self._tasks)
        for k in range(count):
            self._workers[k % places].order({"order": "measure", "task_index": k})
        costs: dict[int, float] = {}
        for k in range(count):
            try:
                header, _ = self._workers[k % places].answer(self._config.job_timeout_seconds)
            except WorkerGone:
                self._restart(k % places)
                for later in range(k + places, count, places):
                    self._workers[later % places].order({"order": "measure", "task_index": later})
                continue
            if header["reply"] == "cost":
                costs[k] = float(header["seconds"])
            elif not isinstance(error := rebuild_error(header), EnvironmentFault):
                raise error
        return completed(costs, count)

    def _request(self, share: LaneAssignment) -> None:
        """Asks the lane's process for its next fragment, with the newest policy."""
        place = self._home[share]
        worker, settings = self._workers[place], self._collection
        if self._told[place] is not self._snapshot:
            worker.publish(self._snapshot)
            self._told[place] = self._snapshot
        order = {
            "order": "collect",
            "share": describe_share(share),
            "steps": settings.steps,
            "acting": asdict(settings.acting),
            "stagger": settings.stagger,
            "seed": None,
        }
        if share not in self._open:
            order["seed"] = self._books.opening_seed(share)
            self._open.add(share)
        self._waiting[place].append(share)
        worker.order(order)

    def _take(self, share: LaneAssignment) -> Fragment | None:
        """The lane's next fragment; None when its task was quarantined meanwhile."""
        while share.task_index not in self.quarantined:
            if share in self._kept:
                return self._kept.pop(share)
            self._hear(self._home[share])
        return None

    def _hear(self, place: int) -> None:
        """Takes in one answer of a process. A lane that failed is asked for anew."""
        try:
            header, arrays = self._workers[place].answer(self._config.job_timeout_seconds)
        except WorkerGone as gone:
            self._replace(place, str(gone))
            return
        share = self._waiting[place].popleft()
        if share.task_index in self.quarantined:
            return
        if header["reply"] == "fragment":
            self._kept[share] = self._books.delivered(share, rebuild_fragment(header, arrays))
            return
        error = rebuild_error(header)
        if not isinstance(error, EnvironmentFault):
            raise error
        self._open.discard(share)
        self._books.failed(share, error)
        if share.task_index not in self.quarantined:
            self._request(share)

    def _replace(self, place: int, reason: str) -> None:
        """A new process for one that is gone; its lanes begin afresh."""
        pending = [share for share in self._waiting[place] if share.task_index not in self.quarantined]
        self._waiting[place].clear()
        self._open -= {share for share in self._order if self._home[share] == place}
        if pending:
            name = self._tasks[pending[0].task_index].name
            self._books.failed(pending[0], EnvironmentFault(name, f"a fragment of {pending[0]}", reason))
        self._restart(place)
        self._told[place] = None
        for share in pending:
            if share.task_index not in self.quarantined:
                self._request(share)

    def _restart(self, place: int) -> None:
        self.replaced += 1
        self._workers[place].close()
        self._workers[place] = WorkerLink(self._tasks, self._config.backends)
        self._ready(self._workers[place])
