"""Environments of tasks: the backends that can step them, and those that a worker keeps between jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from mtrl import registry
from mtrl.errors import MissingExtraError, MtrlError, UnknownNameError, UnsupportedError
from mtrl.faults import environment_faults
from mtrl.tasks import Environment, Task, TaskSet, VectorEnvironment, VectorSuite, disturbances_of

_logger = logging.getLogger(__name__)


def backends_of(task: Task) -> tuple[str, ...]:
    """Every backend of a task, "python" first; imports no simulator. A disturbed task has no other."""
    suite = registry.suite(task.suite)
    if disturbances_of(task):
        return ("python",)
    return ("python", *(suite.vector_backends(task.listed) if isinstance(suite, VectorSuite) else ()))


def require_backends(tasks: TaskSet, backends: Mapping[str, str]) -> None:
    """Raises UnknownNameError for a suite that the tasks do not have, UnsupportedError for a backend
    that one of its tasks does not have, MissingExtraError for one whose package is not installed.
    """
    present = {task.suite for task in tasks}
    for suite, backend in backends.items():
        if suite not in present:
            raise UnknownNameError("suite of runtime.backends among these tasks", suite, present)
        for task in tasks:
            known = backends_of(task)
            if task.suite == suite and backend not in known:
                raise UnsupportedError(
                    f"task {task.name} has no backend {backend!r}; it has {', '.join(known)} with its "
                    f"options. Choose one of them with runtime.backends.{suite}"
                )
        adapter = registry.suite(suite)
        package = adapter.backend_extras.get(backend) if isinstance(adapter, VectorSuite) else None
        if package is not None and find_spec(package) is None:
            raise MissingExtraError(f"runtime.backends.{suite}={backend}", package, package)


def vector_environment(task: Task, copies: int, backend: str, seed: int) -> VectorEnvironment:
    """A new vector environment; raises EnvironmentFault when it cannot be built for a reason of its own."""
    suite = registry.suite(task.suite)
    if not isinstance(suite, VectorSuite):
        raise UnsupportedError(f"suite {task.suite!r} has the python backend only; got {backend!r}")
    with environment_faults(task.name, f"construction on backend {backend}"):
        return suite.vector_environment(task.listed, copies, backend, seed)


def official_environments(task: Task, copies: int) -> list[Environment]:
    """`copies` new official environments, or none at all; raises EnvironmentFault as `vector_environment`."""
    built: list[Environment] = []
    try:
        while len(built) < copies:
            with environment_faults(task.name, "construction"):
                built.append(registry.environment(task))
    except BaseException:
        close_all(task, built)
        raise
    return built


def close_all(task: Task, environments: Sequence[Environment | VectorEnvironment]) -> None:
    """Closes what can be closed: what failed before may fail here too, and must not keep the rest open."""
    for environment in environments:
        try:
            with environment_faults(task.name, "closing"):
                environment.close()
        except MtrlError:
            _logger.exception("an environment of task %s failed to close", task.name)


class EnvironmentPool:
    """Environments by task, built when first needed and reused by later jobs."""

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str]) -> None:
        """Builds nothing yet; `backends` as `RuntimeConfig.backends`."""
        self._tasks, self._backends = tasks, backends
        self._single: dict[int, list[Environment]] = {}
        self._vector: dict[int, tuple[int, VectorEnvironment]] = {}
        self._startless: set[int] = set()

    def take(self, task_index: int, count: int) -> list[Environment]:
        """`count` official environments of a task; raises EnvironmentFault when one cannot be built."""
        pool = self._single.setdefault(task_index, [])
        task = self._tasks[task_index]
        pool += official_environments(task, count - len(pool))
        return pool[:count]

    def renew(self, task_index: int, failed: Environment) -> Environment:
        """A new environment in place of one that failed, which is closed; raises EnvironmentFault when it
        cannot be built.
        """
        task, pool = self._tasks[task_index], self._single[task_index]
        pool[:] = [environment for environment in pool if environment is not failed]
        close_all(task, [failed])
        pool += official_environments(task, 1)
        return pool[-1]

    def take_vector(self, task_index: int, count: int) -> tuple[str, VectorEnvironment] | None:
        """The task's vector backend and `count` copies on it; None without one that can reset to a start."""
        task = self._tasks[task_index]
        backend = self._backends.get(task.suite, "python")
        if backend == "python" or task_index in self._startless:
            return None
        known = self._vector.get(task_index)
        if known is None or known[0] != count:
            built = vector_environment(task, count, backend, 0)
            if not built.supports_starts:
                built.close()
                self._startless.add(task_index)
                return None
            if known is not None:
                known[1].close()
            self._vector[task_index] = (count, built)
        return backend, self._vector[task_index][1]

    def drop(self, task_index: int) -> None:
        """Closes and forgets the environments of one task."""
        kept: list[Environment | VectorEnvironment] = [*self._single.pop(task_index, [])]
        if task_index in self._vector:
            kept.append(self._vector.pop(task_index)[1])
        close_all(self._tasks[task_index], kept)

    def close(self) -> None:
        """Frees every simulator."""
        for task_index in {*self._single, *self._vector}:
            self.drop(task_index)
