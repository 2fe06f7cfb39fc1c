"""Calls to a worker, and their execution: the same in a worker process and in a Ray actor."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mtrl import registry
from mtrl.tasks import TaskSet

from ..fragment import Fragment
from ..job import EpisodeJob, JobResult
from ..policy import Acting, PolicySnapshot
from .worker import LaneAssignment, OpenLaneState, RolloutWorker


@dataclass(frozen=True)
class Play:
    """Run a job; returns a JobResult."""

    job: EpisodeJob
    cache_megabytes: float = math.inf
    """Environments that are kept for later jobs; this job's may exceed it."""


@dataclass(frozen=True)
class Collect:
    """Collect a fragment of a lane; returns it, or None where the lane is not open any more."""

    assignment: LaneAssignment
    steps: int
    acting: Acting
    stagger: bool
    opening_seed: int | None
    """Opens the lane first, with this seed; None continues with the open one."""
    newest: bool = False
    """Use the newest policy as the call begins, where the back end can, and not that of its submission."""
    closing: tuple[LaneAssignment, ...] = ()
    """Lanes that are closed first, because they have moved to another worker."""


@dataclass(frozen=True)
class Measure:
    """Measure a task; returns the seconds of one decision of one copy."""

    task_index: int


@dataclass(frozen=True)
class LanesState:
    """Return the state of every open lane, as `RolloutWorker.lanes_state`."""


@dataclass(frozen=True, eq=False)
class RestoreLane:
    """Open a lane and restore its state; returns None."""

    assignment: LaneAssignment
    opening_seed: int
    stagger: bool
    state: OpenLaneState


Call = Play | Collect | Measure | LanesState | RestoreLane
CallValue = JobResult | Fragment | float | list[OpenLaneState] | None


class CallExecutor:
    """A worker that carries out calls, one after another."""

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str]) -> None:
        """Builds nothing yet."""
        self._tasks = tasks
        self._worker = RolloutWorker(tasks, backends)
        self._held: OrderedDict[int, float] = OrderedDict()

    def perform(self, call: Call, policy: Callable[[], PolicySnapshot]) -> CallValue:
        """The call's value; raises EnvironmentFault when an environment fails."""
        if isinstance(call, Play):
            self._make_room(call.job, call.cache_megabytes)
            return self._worker.run(call.job, policy())
        if isinstance(call, Measure):
            return self._worker.measure(call.task_index)
        if isinstance(call, LanesState):
            return self._worker.lanes_state()
        assignment = call.assignment
        for moved in call.closing if isinstance(call, Collect) else ():
            self._worker.close_lane(moved)
        if call.opening_seed is not None:
            self._worker.open(assignment, policy(), call.opening_seed, call.stagger)
        if isinstance(call, RestoreLane):
            self._worker.load_lane_state(call.state)
        elif self._worker.has(assignment):
            return self._worker.collect(assignment, call.steps, policy(), call.acting)
        return None

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def _make_room(self, job: EpisodeJob, cache_megabytes: float) -> None:
        """Frees environments of the tasks not played for longest, until the job's fit."""
        needed = registry.task_megabytes(self._tasks[job.task_index]) * min(job.copies, len(job.starts))
        self._held[job.task_index] = max(needed, self._held.get(job.task_index, 0.0))
        self._held.move_to_end(job.task_index)
        while len(self._held) > 1 and sum(self._held.values()) > cache_megabytes:
            oldest, _ = self._held.popitem(last=False)
            self._worker.drop(oldest)
