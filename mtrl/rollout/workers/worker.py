"""The worker: hosts lanes and policies in one process: this one, a worker process, or a Ray actor's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.errors import ConfigError, EnvironmentFault, UnsupportedError
from mtrl.tasks import TaskSet, TrainingStarts

from ..fragment import Fragment
from ..job import EpisodeJob, JobResult
from ..lanes.environments import EnvironmentPool, official_environments, vector_environment
from ..lanes.lane import Lane, LaneState
from ..lanes.python_lane import PythonLane
from ..lanes.recorder import StepRecorder
from ..lanes.run_job import run_job, schedule_of
from ..lanes.vector_lane import VectorLane
from ..policy import Acting, Policy, PolicySnapshot, PolicyState, Version, generator_for
from ..scripted import RandomPolicy, policy_from

MEASURED_STEPS = 30
"""Decisions behind the measured cost of a task."""


@dataclass(frozen=True)
class LaneAssignment:
    """The copies of one task that a worker hosts together for continuous collection."""

    task_index: int
    copies: int
    first_copy: int
    """Index of the first copy here among all copies of the task."""
    total_copies: int


class OpenLaneState(TypedDict):
    """State from which an open lane is rebuilt, except the policy's weights."""

    task_index: int
    first_copy: int
    lane: LaneState
    policy_state: PolicyState
    ended: npt.NDArray[np.bool_]
    decisions: int
    generators: list[Mapping[str, Any]]


class _OpenLane:
    """A lane in continuous collection, with its policy state and generators."""

    def __init__(self, lane: Lane, policy: Policy, seed: int, first_copy: int) -> None:
        self.lane = lane
        lane.begin()
        self.state = policy.initial_state(lane.copies)
        self.ended = np.ones(lane.copies, dtype=bool)
        self.decisions = 0
        self.generators = [
            generator_for(seed, lane.task.name, first_copy + copy) for copy in range(lane.copies)
        ]
        self._policy = policy

    def use(self, policy: Policy) -> None:
        """Another policy acts from now on. New weights continue with the state; a policy that keeps other
        state, as after random play, begins with its own, as at the start of an episode.
        """
        if policy is self._policy:
            return
        self._policy, fresh = policy, policy.initial_state(self.lane.copies)
        if {k: v.shape for k, v in fresh.items()} != {k: v.shape for k, v in self.state.items()}:
            self.state, self.ended = fresh, np.ones(self.lane.copies, dtype=bool)


class RolloutWorker:
    """Environments are built once per (task, copy) and reused by later jobs.

    Every task is isolated: an EnvironmentFault drops the environments of the job, or the lane, that
    failed. The next job of the task builds new ones; a lane must be opened again.
    """

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str] | None = None) -> None:
        """Builds nothing yet; `backends` as `RuntimeConfig.backends`."""
        self.tasks = tasks
        self._backends = dict(backends or {})
        self._environments = EnvironmentPool(tasks, self._backends)
        self._last: tuple[PolicySnapshot, Policy] | None = None
        """The snapshot that was rebuilt last, and its policy."""
        self._lanes: dict[tuple[int, int], _OpenLane] = {}
        """By task and first copy."""

    def run(self, job: EpisodeJob, snapshot: PolicySnapshot) -> JobResult:
        """Plays a job with the policy, rebuilt when the snapshot differs from the last one.

        Raises EnvironmentFault when an environment fails, UnsupportedError when the suite has no starts.
        """
        suite = registry.suite(self.tasks[job.task_index].suite)
        if not suite.supports_starts:
            raise UnsupportedError(
                f"suite {suite.name!r} cannot reset to a given start, so it serves continuous training only; "
                "evaluate and collect episodes with a suite that has starts"
            )
        policy = self._policy(snapshot)
        try:
            return run_job(job, self._job_lane(job), policy, incarnation=snapshot.incarnation)
        except EnvironmentFault:
            self.drop(job.task_index)
            raise

    def open(
        self, assignment: LaneAssignment, policy: PolicySnapshot | Policy, seed: int, stagger: bool = False
    ) -> None:
        """Opens a lane for continuous collection, in place of one that is open.

        `stagger` cuts first episodes short, each elsewhere, so that later resets do not coincide.
        """
        policy = self._policy(policy)
        self._close_lane(assignment.task_index, assignment.first_copy)
        lane = self._lane(assignment, seed, stagger)
        try:
            opened = _OpenLane(lane, policy, seed, assignment.first_copy)
        except BaseException:
            lane.close()
            raise
        self._lanes[assignment.task_index, assignment.first_copy] = opened

    def has(self, assignment: LaneAssignment) -> bool:
        """Whether the lane of that assignment is open."""
        return (assignment.task_index, assignment.first_copy) in self._lanes

    def close_lane(self, assignment: LaneAssignment) -> None:
        """Closes the lane of that assignment, if it is open."""
        self._close_lane(assignment.task_index, assignment.first_copy)

    def lane(self, assignment: LaneAssignment) -> Lane:
        """The open lane of that assignment; raises ConfigError when none is open."""
        return self._opened(assignment).lane

    def measure(self, task_index: int) -> float:
        """Seconds that one decision of one copy takes, its share of a reset included; random actions."""
        task = self.tasks[task_index]
        policy = RandomPolicy(self.tasks)
        lane = self._lane(LaneAssignment(task_index, 1, 0, 1), 0, False)
        index = np.full(1, task_index, dtype=np.int64)
        generators, acting = [generator_for(0, task.name, 0)], Acting(explore=True)
        try:
            lane.begin()
            began = time.perf_counter()
            # a second time: the first one pays for what is loaded or compiled lazily
            lane.begin()
            reset = time.perf_counter() - began
            spent: list[float] = []
            for _ in range(MEASURED_STEPS):
                action = policy.act(
                    lane.observation, index, {}, lane.terminated, acting=acting, generators=generators
                )
                began = time.perf_counter()
                lane.step(action.continuous, action.discrete)
                spent.append(time.perf_counter() - began)
        finally:
            lane.close()
        # the median, because a busy machine disturbs single steps, and a step may hold a reset
        return float(np.median(spent)) + reset / task.horizon_decisions

    def collect(
        self,
        assignment: LaneAssignment,
        steps: int,
        policy: PolicySnapshot | Policy,
        acting: Acting,
        incarnation: int = 0,
    ) -> Fragment:
        """`steps` decisions of an open lane as one fragment; the episodes continue in the next one.

        A snapshot holds the incarnation of its learner itself; `incarnation` is that of a policy in use.
        Raises EnvironmentFault when an environment fails; the lane is closed then.
        """
        if isinstance(policy, PolicySnapshot):
            incarnation = policy.incarnation
        policy = self._policy(policy)
        opened = self._opened(assignment)
        opened.use(policy)
        lane = opened.lane
        task_index = np.full(lane.copies, assignment.task_index, dtype=np.int64)
        recorder = StepRecorder(lane, policy.extras, steps=steps)
        version = Version(incarnation, policy.version)
        for _ in range(steps):
            action = policy.act(
                lane.observation,
                task_index,
                opened.state,
                opened.ended,
                acting=acting,
                generators=opened.generators,
            )
            opened.state = action.state
            recorder.before_step(action)
            try:
                lane.step(action.continuous, action.discrete)
            except EnvironmentFault:
                self._close_lane(assignment.task_index, assignment.first_copy)
                raise
            recorder.after_step()
            opened.ended = lane.terminated | lane.truncated
        first_step, opened.decisions = opened.decisions, opened.decisions + steps
        return recorder.fragment(version, assignment.first_copy, first_step)

    def lanes_state(self) -> list[OpenLaneState]:
        """Everything needed to rebuild the open lanes exactly."""
        return [
            {
                "task_index": task_index,
                "first_copy": first_copy,
                "lane": opened.lane.state_dict(),
                "policy_state": {name: rows.copy() for name, rows in opened.state.items()},
                "ended": opened.ended.copy(),
                "decisions": opened.decisions,
                "generators": [generator.bit_generator.state for generator in opened.generators],
            }
            for (task_index, first_copy), opened in sorted(self._lanes.items())
        ]

    def load_lane_state(self, saved: OpenLaneState) -> None:
        """Rebuilds a lane that `open` opened with the same assignment.

        Raises EnvironmentFault when an environment fails; the lane is closed then.
        """
        key = saved["task_index"], saved["first_copy"]
        opened = self._lanes[key]
        try:
            opened.lane.load_state_dict(saved["lane"])
        except EnvironmentFault:
            self._close_lane(*key)
            raise
        opened.state = {name: rows.copy() for name, rows in saved["policy_state"].items()}
        opened.ended, opened.decisions = saved["ended"].copy(), saved["decisions"]
        for generator, state in zip(opened.generators, saved["generators"], strict=True):
            generator.bit_generator.state = state

    def drop(self, task_index: int) -> None:
        """Closes and forgets the environments of one task."""
        self._environments.drop(task_index)

    def close(self) -> None:
        """Frees every simulator."""
        self._environments.close()
        for key in list(self._lanes):
            self._close_lane(*key)

    def _opened(self, assignment: LaneAssignment) -> _OpenLane:
        if not self.has(assignment):
            raise ConfigError(f"no lane is open for {assignment}; open it first, and again after a fault")
        return self._lanes[assignment.task_index, assignment.first_copy]

    def _close_lane(self, task_index: int, first_copy: int) -> None:
        opened = self._lanes.pop((task_index, first_copy), None)
        if opened is not None:
            opened.lane.close()

    def _policy(self, snapshot: PolicySnapshot | Policy) -> Policy:
        if not isinstance(snapshot, PolicySnapshot):
            return snapshot
        if self._last is None or not self._last[0].same_as(snapshot):
            self._last = snapshot, policy_from(snapshot, self.tasks)
        return self._last[1]

    def _lane(self, assignment: LaneAssignment, seed: int, stagger: bool) -> Lane:
        """A lane, not begun, on the backend that the runtime names for the task's suite."""
        task, layout = self.tasks[assignment.task_index], self.tasks.layout
        place = {"first_copy": assignment.first_copy, "total_copies": assignment.total_copies}
        schedule = TrainingStarts(copies=assignment.copies, seed=seed, **place)
        settings: dict[str, Any] = {**place, "stagger": stagger}
        backend = self._backends.get(task.suite, "python")
        if backend == "python":
            settings["supports_starts"] = registry.suite(task.suite).supports_starts
            environments = official_environments(task, assignment.copies)
            return PythonLane(task, assignment.task_index, layout, environments, schedule, **settings)
        entropy = int(generator_for(seed, task.name, assignment.first_copy).integers(2**31))
        vectors = vector_environment(task, assignment.copies, backend, entropy)
        return VectorLane(
            task, assignment.task_index, layout, vectors, assignment.copies, schedule, backend, **settings
        )

    def _job_lane(self, job: EpisodeJob) -> Lane:
        """A lane for a job, on a vector backend if the job allows one that can reset to a given start."""
        # A task ends on success in continuous collection only; whole episodes are played out.
        k, task = job.task_index, replace(self.tasks[job.task_index], end_on_success=False)
        layout, schedule, tail = self.tasks.layout, schedule_of(job), job.success_tail
        count = len(schedule.queues)
        found = self._environments.take_vector(k, count) if job.native else None
        if found is None:
            environments = self._environments.take(k, count)
            renew = partial(self._environments.renew, k) if job.keep_going else None
            return PythonLane(task, k, layout, environments, schedule, renew=renew, success_tail=tail)
        backend, vectors = found
        return VectorLane(task, k, layout, vectors, count, schedule, backend, success_tail=tail)
