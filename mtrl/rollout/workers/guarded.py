"""Calls in a child process of a worker, whose end tells a crash from a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mtrl.errors import EnvironmentFault
from mtrl.tasks import TaskSet

from ..policy import PolicySnapshot
from ..runtime import RuntimeConfig
from .backend import Finished, call_all
from .calls import Call, CallValue, Collect, LanesState, Measure, Play, RestoreLane
from .processes import Processes


class GuardedExecutor:
    """A `CallExecutor` in a process that this one watches.

    Who starts workers elsewhere, as Ray does, hears of a crash, of a kill from outside and of the loss of a
    machine in one way. The parent of a process knows them apart: here a crash is a fault of the call's task.
    """

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str], timeout_seconds: float) -> None:
        """Returns when the process has started."""
        config = RuntimeConfig(backends=dict(backends), job_timeout_seconds=timeout_seconds)
        self._tasks, self._processes = tasks, Processes(tasks, config)
        self._processes.start(1)
        while not self._processes.slots[0].started:
            self._processes.wait(1.0)

    def perform(self, call: Call, policy: Callable[[], PolicySnapshot]) -> CallValue:
        """As `CallExecutor.perform`; ends this process too where the child was killed from outside."""
        if not isinstance(call, Measure | LanesState):
            self._processes.publish(policy())
        (outcome,) = call_all(self._processes, [(0, call)])
        if isinstance(outcome, Finished):
            if outcome.error is not None:
                raise outcome.error
            return outcome.value
        task_index = _task_index(call)
        if not outcome.is_cause or task_index is None:
            os._exit(1)
        raise EnvironmentFault(self._tasks[task_index].name, "a call of a worker", outcome.reason)

    def close(self) -> None:
        """Ends the process."""
        self._processes.close()


def _task_index(call: Call) -> int | None:
    if isinstance(call, Play):
        return call.job.task_index
    if isinstance(call, Collect | RestoreLane):
        return call.assignment.task_index
    return call.task_index if isinstance(call, Measure) else None
