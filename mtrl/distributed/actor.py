"""The rollout actor: one `RolloutWorker` in a process of its own."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import ray

from mtrl import registry
from mtrl.errors import EnvironmentFault, MtrlError
from mtrl.rollout import Acting, EpisodeJob, Fragment, JobResult, LaneAssignment, RolloutWorker
from mtrl.tasks import TaskSet, set_native_threads

from .weights import WeightReader, WeightsLost

if TYPE_CHECKING:
    from ray.actor import ActorHandle

T = TypeVar("T")


@dataclass(frozen=True)
class ActorFacts:
    """Where an actor runs."""

    pid: int
    node: str
    """Ray's id of the node."""
    modules: frozenset[str]
    """Top-level modules that are loaded."""


@dataclass(frozen=True)
class Mistake:
    """An error of ours that belongs to the caller, taken apart: not every one survives pickling."""

    kind: type[MtrlError]
    arguments: tuple[object, ...]
    fields: dict[str, object]
    trace: str

    @staticmethod
    def of(error: MtrlError) -> Mistake:
        """Takes the error apart; call it while the error is handled."""
        return Mistake(type(error), error.args, dict(error.__dict__), traceback.format_exc())

    def error(self) -> MtrlError:
        """The same error, with the actor's traceback as a note."""
        again = self.kind.__new__(self.kind, *self.arguments)
        again.__dict__.update(self.fields)
        again.add_note(f"raised in a rollout actor:\n{self.trace}")
        return again


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What a call came to; an environment's fault must not look like the death of its actor."""

    value: T | None = None
    fault: EnvironmentFault | None = None
    mistake: Mistake | None = None
    weights_lost: bool = False
    seconds: float = 0.0
    """Time the call took inside the actor."""


class RolloutActor:
    """Plays jobs and collects fragments. A bug of ours raises; everything expected is a `Reply`."""

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str]) -> None:
        """Builds nothing yet."""
        # the other processors belong to the other actors
        set_native_threads(1)
        self._tasks = tasks
        self._worker = RolloutWorker(tasks, backends)
        self._weights = WeightReader()
        self._held: OrderedDict[int, float] = OrderedDict()
        self._open: set[LaneAssignment] = set()

    def facts(self) -> ActorFacts:
        """Answers as soon as the actor is up."""
        modules = frozenset(name for name in sys.modules if "." not in name)
        return ActorFacts(os.getpid(), ray.get_runtime_context().get_node_id(), modules)

    def play(
        self, job: EpisodeJob, cache_megabytes: float, publication: int, store: ActorHandle
    ) -> Reply[JobResult]:
        """Runs a job with exactly the newest weights, which are the job's.

        `cache_megabytes` bounds the environments kept for later jobs; this job's may exceed it.
        """

        def work() -> JobResult:
            self._make_room(job, cache_megabytes)
            return self._worker.run(job, self._weights.at_least(publication, store))

        return _reply(work)

    def measure(self, task_index: int) -> Reply[float]:
        """Seconds of one decision of one copy of a task."""
        return _reply(lambda: self._worker.measure(task_index))

    def collect(
        self,
        share: LaneAssignment,
        steps: int,
        acting: Acting,
        opening_seed: int | None,
        stagger: bool,
        store: ActorHandle,
    ) -> Reply[Fragment]:
        """A fragment of a lane, with weights as new as the store has them.

        `opening_seed` opens the lane first. Without it a lane that has failed since gives nothing: the
        call was on its way when the fault happened.
        """

        def work() -> Fragment | None:
            snapshot = self._weights.newest(store)
            if opening_seed is not None:
                self._worker.open([share], snapshot, opening_seed, stagger)
                self._open.add(share)
            return self._worker.collect(share, steps, snapshot, acting) if share in self._open else None

        reply = _reply(work)
        if reply.fault is not None:
            self._open.discard(share)
        return reply

    def _make_room(self, job: EpisodeJob, cache_megabytes: float) -> None:
        """Frees environments of the tasks not played for longest, until the job's fit."""
        needed = registry.task_megabytes(self._tasks[job.task_index]) * min(job.copies, len(job.starts))
        self._held[job.task_index] = max(needed, self._held.get(job.task_index, 0.0))
        self._held.move_to_end(job.task_index)
        while len(self._held) > 1 and sum(self._held.values()) > cache_megabytes:
            oldest, _ = self._held.popitem(last=False)
            self._worker.drop(oldest)


def _reply(work: Callable[[], T | None]) -> Reply[T]:
    _one_thread()
    began = time.monotonic()
    try:
        value = work()
    except EnvironmentFault as fault:
        return Reply(fault=fault)
    except MtrlError as error:
        return Reply(mistake=Mistake.of(error))
    except WeightsLost:
        return Reply(weights_lost=True)
    return Reply(value=value, seconds=time.monotonic() - began)


def _one_thread() -> None:
    """An actor has one processor; torch is asked only when a policy has loaded it already."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
