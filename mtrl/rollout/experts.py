"""Which tasks can be demonstrated, said before anything is played."""

from __future__ import annotations

from collections.abc import Iterable

from mtrl import registry
from mtrl.errors import UnsupportedError
from mtrl.tasks import Task


def require_experts(tasks: Iterable[Task]) -> None:
    """Refuses tasks that no scripted expert plays; builds no environment and no expert.

    Raises UnsupportedError that lists every such task, those of suites without experts and those with
    discrete actions, and says what to do instead.
    """
    without = []
    for task in tasks:
        if not registry.suite(task.suite).has_experts:
            without.append(f"{task.name} (suite {task.suite!r} has no experts)")
        elif task.action.is_discrete:
            without.append(f"{task.name} (discrete; scripted experts are continuous)")
    if without:
        raise UnsupportedError(
            f"there is no scripted expert for {', '.join(without)}. Leave these tasks out; to "
            "train on them, bring demonstrations of your own as Minari datasets. "
            "mtrl tasks --json says which tasks have an expert"
        )
