"""Settings of the runtime, and the contracts of what collects fragments and whole episodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, EnvironmentFault
from mtrl.structured import POSITIVE, Checked, at_least

from .fragment import Fragment
from .job import EpisodeJob, JobResult
from .policy import Acting, PolicySnapshot, Version

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuntimeConfig(Checked, place="runtime"):
    """Settings of the runtime that hosts the rollouts."""

    kind: Annotated[str, ("local", "ray")] = "local"
    """"local": in this process, deterministic. "ray": the same workers inside Ray actors."""
    actors: Annotated[int, at_least(0, "one per processor")] = 0
    """Rollout actors on Ray, one processor each; 0 takes one per available processor."""
    learners: Annotated[int, at_least(0, "in this process")] = 0
    """Learner processes on Ray, each with its share of the actors; they compute every update together. A lost
    one is started again and goes on with its replay. 0 learns in the process of the command."""
    address: str = ""
    """Address of a running Ray cluster; empty starts a private one on this machine."""
    workers: Annotated[int, at_least(0, "in this process")] = 0
    """Processes that step the environments when kind is "local"; 0 steps them in this one."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """Suite name -> vector backend that steps its tasks in training, such as {atari: native, metaworld:
    envpool}; "python", the official environment, where a suite is not named. It serves continuous collection
    and, where it can reset to a given start, groups. Evaluation and demonstrations run on the official
    environment."""
    attempts: Annotated[int, at_least(1)] = 3
    """Times a job is tried before its task is quarantined, at least 1."""
    job_timeout_seconds: Annotated[float, POSITIVE] = 600.0
    """A job that takes longer counts as hung; its actor is replaced. In seconds, positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "ray" and self.workers:
            raise ConfigError(
                f"runtime.workers={self.workers} are processes of this machine, and runtime.kind is 'ray'; "
                "set runtime.actors instead, or runtime.kind=local"
            )
        if self.kind == "local" and self.learners:
            raise ConfigError(
                f"runtime.learners={self.learners} are processes of Ray, and runtime.kind is 'local'; "
                "write runtime=ray too"
            )


@dataclass(frozen=True)
class CollectionConfig(Checked, place="collection"):
    """Settings of the lanes in continuous collection."""

    copies: Annotated[int, at_least(1)] = 4
    """Environments of every task, at least 1."""
    steps: Annotated[int, at_least(1)] = 64
    """Decisions of each copy per fragment, at least 1; 0.2 to 2 seconds of stepping is a good size."""
    explore: bool = True
    """Training noise on."""
    stagger: bool = True
    """Cut the first episode of every copy short, each elsewhere, so that copies that begin together do
    not reset together ever after; a Meta-World reset takes as long as 35 steps."""
    queue_megabytes: Annotated[float, POSITIVE] = 256.0
    """Fragments under way or waiting for the learner where they come by arrival, as on Ray, in MB, above 0;
    beyond that workers pause."""

    REMOVED: ClassVar[Mapping[str, object]] = {"plan": True}
    """Whether policies plan while they collect is a setting of the agent, `agent.planning.collect`."""

    @property
    def acting(self) -> Acting:
        """The `Acting` of policies in this collection."""
        return Acting(self.explore)


class Rollouts(Protocol):
    """Runs jobs; results come in job order, whatever order they finished in."""

    quarantined: dict[int, str]
    """Task index -> the fault that quarantined the task, in one line."""

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


class Fragments(Protocol):
    """An endless source of fragments from every task that is not quarantined."""

    quarantined: dict[int, str]
    """Task index -> the fault that quarantined the task, in one line."""
    by_arrival: bool
    """Whether fragments come as they are finished, and may be of older policies than the newest."""

    def publish(self, snapshot: PolicySnapshot) -> Version:
        """Sets new weights; fragments begun from now on use them and record it in `policy_version`."""

    def stream(self) -> Iterator[Fragment]:
        """Fragments without end, or until every task is quarantined. Fragments of one lane come in
        order; may be left and called again, and continues where it was.
        """

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """Sets the proportions, [K], sum 1, in which tasks are stepped from the next fragment on."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next fragment depends on, but for the policy's weights.

        Raises UnsupportedError where lanes cannot be rebuilt exactly, as on a backend without starts.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a source of the same tasks and settings; called before `stream`.

        Raises UnsupportedError for the state of another kind of source: lanes start with new episodes then.
        """

    def close(self) -> None:
        """Frees workers and simulators."""


FaultHandler = Callable[[EnvironmentFault, bool], None]
"""Called with a fault and whether it quarantines the task."""


class FaultText:
    """Faults as text: with the traceback the first time, in a line when the same comes again."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def of(self, fault: EnvironmentFault) -> str:
        """The fault with its traceback, or in a line where one of this task and reason came before."""
        known = (fault.task, fault.reason) in self._seen
        self._seen.add((fault.task, fault.reason))
        return fault.summary if known else str(fault)


class FaultLog:
    """The fault handler where none is given: a log entry per fault, the traceback once."""

    def __init__(self) -> None:
        self._text = FaultText()

    def __call__(self, fault: EnvironmentFault, quarantines: bool) -> None:
        """Logs an error for a fault that quarantines its task, a warning for one that is tried again."""
        text = self._text.of(fault)
        if quarantines:
            _logger.error("task %s is quarantined: %s", fault.task, text)
        else:
            _logger.warning("%s", text)
