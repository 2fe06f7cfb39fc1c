"""Which backend steps which task in continuous collection and groups, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TypeVar

from mtrl import registry
from mtrl.errors import MissingExtraError, UnknownNameError, UnsupportedError, environment_faults
from mtrl.tasks import Task, TaskSet, VectorEnvironment, VectorSuite

Made = TypeVar("Made")


def backends_of(task: Task) -> tuple[str, ...]:
    """Every backend of a task, "python" first; imports no simulator."""
    suite = registry.suite(task.suite)
    return ("python", *(suite.vector_backends(task) if isinstance(suite, VectorSuite) else ()))


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
        return suite.vector_environment(task, copies, backend, seed)
