"""The worker: hosts lanes and policies in one process: this one, a worker process, or a Ray actor's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtrl import registry
from mtrl.errors import ConfigError, EnvironmentFault, UnsupportedError
from mtrl.tasks import FixedStarts, Task, TaskSet, TrainingStarts

from ..fragment import Fragment, fragment_of
from ..job import EpisodeJob, JobResult, run_job, schedule_of
from ..lanes.backends import vector_environment
from ..lanes.environments import EnvironmentPool, build_all
from ..lanes.lane import Lane
from ..lanes.python_lane import PythonLane
from ..lanes.recorder import StepRecorder
from ..lanes.vector_lane import VectorLane
from ..policy import Acting, Policy, PolicySnapshot, Version, generator_for
from ..rebuild import policy_from

MEASURED_STEPS = 30
"""Decisions behind the measured cost of a task."""


@dataclass(frozen=True)
class LaneAssignment:
    """A share of one task's copies that a worker hosts for continuous collection."""

    task_index: int
    copies: int
    first_copy: int
    """Index of the share's first copy among all copies of the task."""
    total_copies: int


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

    def follow(self, policy: Policy) -> None:
        """Another policy acts from now on. New weights go on with the state; a policy that keeps other state,
        as after random play, begins with its own, as at the start of an episode.
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
        self._policies: dict[str, tuple[PolicySnapshot, Policy]] = {}
        self._lanes: dict[tuple[int, int], _OpenLane] = {}

    def run(self, job: EpisodeJob, snapshot: PolicySnapshot, label: str = "policy") -> JobResult:
        """Plays a job with the policy, rebuilt when the snapshot differs from the last one of `label`.

        Raises EnvironmentFault when an environment fails, UnsupportedError when the suite has no starts.
        """
        # A task ends on success in continuous collection only; whole episodes are played out.
        task = replace(self.tasks[job.task_index], end_on_success=False)
        if not registry.suite(task.suite).supports_starts:
            raise UnsupportedError(
                f"suite {task.suite!r} cannot honour starts, so it serves continuous training only; "
                "evaluate and collect episodes with a suite that has starts"
            )
        policy = self._policy(snapshot, label)
        schedule = schedule_of(job)
        try:
            lane = self._job_lane(job, task, schedule)
            return run_job(job, lane, policy, task.observation.state, incarnation=snapshot.incarnation)
        except EnvironmentFault:
            self.drop(job.task_index)
            raise

    def open(
        self,
        assignments: Sequence[LaneAssignment],
        policy: PolicySnapshot | Policy,
        seed: int,
        stagger: bool = False,
    ) -> None:
        """Opens lanes for continuous collection, each with its share of the task's copies.

        `stagger` cuts first episodes short, each elsewhere, so that later resets do not coincide.
        """
        policy = self._policy(policy, "policy")
        for share in assignments:
            self._shut(share.task_index, share.first_copy)
            lane = self._lane(share, seed, stagger)
            try:
                held = _OpenLane(lane, policy, seed, share.first_copy)
            except BaseException:
                lane.close()
                raise
            self._lanes[share.task_index, share.first_copy] = held

    def has(self, share: LaneAssignment) -> bool:
        """Whether the lane of that share is open."""
        return (share.task_index, share.first_copy) in self._lanes

    def lane(self, share: LaneAssignment) -> Lane:
        """The open lane of that share; raises ConfigError when none is open."""
        return self._held(share).lane

    def measure(self, task_index: int) -> float:
        """Seconds that one decision of one copy takes, its share of a reset included; random actions."""
        share = LaneAssignment(task_index, 1, 0, 1)
        task = self.tasks[task_index]
        policy = self._policy(PolicySnapshot("random"), "measure")
        lane = self._lane(share, 0, False)
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
        share: LaneAssignment,
        steps: int,
        policy: PolicySnapshot | Policy,
        acting: Acting,
        incarnation: int = 0,
    ) -> Fragment:
        """`steps` decisions of an open lane as one fragment; the episodes go on in the next one.

        A snapshot says the incarnation of its learner itself; `incarnation` is that of a policy in use.
        Raises EnvironmentFault when an environment fails; the lane is closed then.
        """
        if isinstance(policy, PolicySnapshot):
            incarnation = policy.incarnation
        policy = self._policy(policy, "policy")
        held = self._held(share)
        held.follow(policy)
        lane = held.lane
        task_index = np.full(lane.copies, share.task_index, dtype=np.int64)
        recorder = StepRecorder(lane, policy.extras, steps=steps)
        version = Version(incarnation, policy.version)
        for _ in range(steps):
            action = policy.act(
                lane.observation,
                task_index,
                held.state,
                held.ended,
                acting=acting,
                generators=held.generators,
            )
            held.state = action.state
            recorder.before_step(action)
            try:
                lane.step(action.continuous, action.discrete)
            except EnvironmentFault:
                self._shut(share.task_index, share.first_copy)
                raise
            recorder.after_step()
            held.ended = lane.terminated | lane.truncated
        first_step, held.decisions = held.decisions, held.decisions + steps
        return fragment_of(recorder, version, share.first_copy, first_step)

    def lanes_state(self) -> list[dict[str, object]]:
        """Everything needed to rebuild the open lanes exactly."""
        return [
            {
                "task_index": key[0],
                "first_copy": key[1],
                "lane": held.lane.state_dict(),
                "policy_state": {name: rows.copy() for name, rows in held.state.items()},
                "ended": held.ended.copy(),
                "decisions": held.decisions,
                "generators": [generator.bit_generator.state for generator in held.generators],
            }
            for key, held in sorted(self._lanes.items())
        ]

    def load_lanes_state(self, saved: list[dict[str, object]]) -> None:
        """Rebuilds lanes that `open` opened with the same assignments.

        Raises EnvironmentFault when an environment fails; the lane is closed then.
        """
        for entry in saved:
            task_index, first_copy = entry["task_index"], entry["first_copy"]
            assert isinstance(task_index, int) and isinstance(first_copy, int)
            held = self._lanes[task_index, first_copy]
            lane_state, policy_state = entry["lane"], entry["policy_state"]
            ended, decisions, generators = entry["ended"], entry["decisions"], entry["generators"]
            assert isinstance(lane_state, dict) and isinstance(policy_state, dict)
            assert isinstance(ended, np.ndarray) and isinstance(generators, list)
            assert isinstance(decisions, int)
            try:
                held.lane.load_state_dict(lane_state)
            except EnvironmentFault:
                self._shut(task_index, first_copy)
                raise
            held.state = {name: rows.copy() for name, rows in policy_state.items()}
            held.ended, held.decisions = ended.copy(), decisions
            for generator, state in zip(held.generators, generators, strict=True):
                generator.bit_generator.state = state

    def _lane(self, share: LaneAssignment, seed: int, stagger: bool) -> Lane:
        """A lane, not begun, on the backend that the runtime names for the task's suite."""
        task = self.tasks[share.task_index]
        suite = registry.suite(task.suite)
        schedule = TrainingStarts(
            copies=share.copies, first_copy=share.first_copy, total_copies=share.total_copies, seed=seed
        )
        place = {"first_copy": share.first_copy, "total_copies": share.total_copies, "stagger": stagger}
        backend = self._backends.get(task.suite, "python")
        if backend != "python":
            entropy = generator_for(seed, task.name, share.first_copy).integers(2**31)
            environment = vector_environment(task, share.copies, backend, int(entropy))
            return VectorLane(
                task,
                share.task_index,
                self.tasks.layout,
                environment,
                share.copies,
                schedule,
                backend,
                **place,
            )
        return PythonLane(
            task,
            share.task_index,
            self.tasks.layout,
            build_all(suite, task, share.copies),
            schedule,
            supports_starts=suite.supports_starts,
            **place,
        )

    def drop(self, task_index: int) -> None:
        """Closes and forgets the environments of one task."""
        self._environments.drop(task_index)

    def close(self) -> None:
        """Frees every simulator."""
        self._environments.close()
        for key in list(self._lanes):
            self._shut(*key)

    def _held(self, share: LaneAssignment) -> _OpenLane:
        held = self._lanes.get((share.task_index, share.first_copy))
        if held is None:
            raise ConfigError(f"no lane is open for {share}; open it first, and again after a fault")
        return held

    def _shut(self, task_index: int, first_copy: int) -> None:
        held = self._lanes.pop((task_index, first_copy), None)
        if held is not None:
            held.lane.close()

    def _policy(self, snapshot: PolicySnapshot | Policy, label: str) -> Policy:
        """A policy as it is, or the one that a snapshot describes, rebuilt when it differs from the last of
        `label`.
        """
        if not isinstance(snapshot, PolicySnapshot):
            return snapshot
        known = self._policies.get(label)
        if known is None or not known[0].same_as(snapshot):
            known = (snapshot, policy_from(snapshot, self.tasks))
            self._policies[label] = known
        return known[1]

    def _job_lane(self, job: EpisodeJob, task: Task, schedule: FixedStarts) -> Lane:
        """A lane that plays a job, on a vector backend if the job allows one that honours starts."""
        count, layout = len(schedule.queues), self.tasks.layout
        found = self._environments.take_vector(job.task_index, count) if job.native else None
        if found is None:
            environments = self._environments.take(job.task_index, count)
            return PythonLane(
                task, job.task_index, layout, environments, schedule, success_tail=job.success_tail
            )
        backend, vectors = found
        return VectorLane(
            task,
            job.task_index,
            layout,
            vectors,
            count,
            schedule,
            backend,
            success_tail=job.success_tail,
        )
