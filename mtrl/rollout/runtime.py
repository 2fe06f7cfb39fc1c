"""Where jobs run: in this process, in worker processes, or on Ray, with the same code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mtrl.errors import ConfigError, EnvironmentFault
from mtrl.structured import POSITIVE, at_least, check
from mtrl.tasks import TaskSet

from .job import EpisodeJob, JobResult
from .policy import PolicySnapshot
from .workers.worker import RolloutWorker


@dataclass(frozen=True)
class RuntimeConfig:
    """Which runtime hosts the rollouts."""

    kind: str = "local"
    """"local": in this process, deterministic. "ray": the same workers inside Ray actors."""
    actors: int = 0
    """Rollout actors on Ray, one processor each; 0 takes one per available processor."""
    address: str = ""
    """Address of a running Ray cluster; empty starts a private one on this machine."""
    workers: int = 0
    """Processes that step the environments when kind is "local"; 0 steps them in this one."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Suite name -> vector backend that steps its tasks in training, such as {atari: native, metaworld:
    envpool}; "python", the official environment, where a suite is not named. It serves continuous collection
    and, where it honours starts, groups. Evaluation and demonstrations run on the official environment."""
    attempts: int = 3
    """Times a job is tried before its task is quarantined, at least 1."""
    job_timeout_seconds: float = 600.0
    """A job that takes longer counts as hung; its actor is replaced. In seconds, positive."""

    def __post_init__(self) -> None:
        check(
            self,
            "runtime",
            kind=("local", "ray"),
            actors=at_least(0, "one per processor"),
            workers=at_least(0, "in this process"),
            attempts=at_least(1),
            job_timeout_seconds=POSITIVE,
        )
        if self.kind == "ray" and self.workers:
            raise ConfigError(
                f"runtime.workers={self.workers} are processes of this machine, and runtime.kind is 'ray'; "
                "set runtime.actors instead, or runtime.kind=local"
            )


FaultHandler = Callable[[EnvironmentFault, bool], None]
"""Called with a fault and whether it quarantines the task."""

_logger = logging.getLogger(__name__)


class FaultWords:
    """Faults as text: in full when one is met first, in a line when it comes again or ends in quarantine.

    A task's fault is tried again, so what an environment raises is usually met several times in a row.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def of(self, fault: EnvironmentFault) -> str:
        """The fault with its traceback, or without where the same has been told of this task."""
        known = (fault.task, fault.reason) in self._told
        self._told.add((fault.task, fault.reason))
        return fault.summary if known else str(fault)


class FaultLog:
    """The fault handler where none is given: a log entry per fault, the traceback once."""

    def __init__(self) -> None:
        self._words = FaultWords()

    def __call__(self, fault: EnvironmentFault, quarantines: bool) -> None:
        """Logs an error for a fault that quarantines its task, a warning for one that is tried again."""
        if quarantines:
            _logger.error("task %s is quarantined: %s", fault.task, self._words.of(fault))
        else:
            _logger.warning("%s", self._words.of(fault))


class Rollouts(Protocol):
    """Runs jobs; results come in job order, whatever order they finished in."""

    quarantined: dict[int, str]
    """Task index -> the fault that took the task out, in one line."""

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        """Yields one result per job in order, leaving out jobs of quarantined tasks.

        `on_result` is called as soon as a job finishes, in any order, to show progress.
        """

    def close(self) -> None:
        """Frees workers and simulators."""


class LocalRollouts:
    """Runs jobs one after another in this process."""

    def __init__(self, tasks: TaskSet, config: RuntimeConfig, on_fault: FaultHandler | None = None) -> None:
        """`on_fault` is told of every environment fault; `FaultLog` unless given."""
        self.quarantined: dict[int, str] = {}
        self._worker = RolloutWorker(tasks, config.backends)
        self._attempts = config.attempts
        self._on_fault = on_fault or FaultLog()

    def run(
        self,
        jobs: Sequence[EpisodeJob],
        snapshot: PolicySnapshot,
        *,
        on_result: Callable[[JobResult], None] | None = None,
    ) -> Iterator[JobResult]:
        """Yields results in job order; a task whose job fails `attempts` times is quarantined."""
        for job in jobs:
            if job.task_index in self.quarantined:
                continue
            result = self._try(job, snapshot)
            if result is not None:
                if on_result is not None:
                    on_result(result)
                yield result

    def close(self) -> None:
        """Frees the simulators."""
        self._worker.close()

    def _try(self, job: EpisodeJob, snapshot: PolicySnapshot) -> JobResult | None:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._worker.run(job, snapshot)
            except EnvironmentFault as fault:
                last = attempt == self._attempts
                if last:
                    self.quarantined[job.task_index] = fault.summary
                self._on_fault(fault, last)
        return None
