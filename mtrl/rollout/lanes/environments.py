"""The environments that a worker keeps between jobs."""

from __future__ import annotations

from collections.abc import Mapping

from mtrl import registry
from mtrl.errors import environment_faults
from mtrl.tasks import Environment, Suite, Task, TaskSet, VectorEnvironment

from .backends import vector_environment
from .python_lane import close_all


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
        pool += build_all(registry.suite(task.suite), task, count - len(pool))
        return pool[:count]

    def take_vector(self, task_index: int, count: int) -> tuple[str, VectorEnvironment] | None:
        """The task's vector backend and `count` copies on it; None where it has none that honours starts."""
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


def build_all(suite: Suite, task: Task, copies: int) -> list[Environment]:
    """`copies` new environments, or none at all."""
    built: list[Environment] = []
    try:
        while len(built) < copies:
            with environment_faults(task.name, "construction"):
                built.append(suite.environment(task))
    except BaseException:
        close_all(task, built)
        raise
    return built
