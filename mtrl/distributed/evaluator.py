"""Evaluation beside training: an actor that plays while the learners learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import ray

from mtrl.rollout import PolicySnapshot, RemoteError
from mtrl.training import Evaluation

from .cluster import actor_environment

Evaluate = Callable[[PolicySnapshot], Any]


class EvaluatorActor:
    """Evaluates one policy after another."""

    def __init__(self, evaluate: Evaluate) -> None:
        """`evaluate` returns the result of a policy."""
        self._evaluate = evaluate

    def evaluate(self, snapshot: PolicySnapshot) -> Any:  # noqa: ANN401 - an EvaluationResult, or a RemoteError
        """The result; an error comes back as data."""
        try:
            return self._evaluate(snapshot)
        except Exception as error:  # noqa: BLE001 - raised by the learner
            return RemoteError.of(error)


def start_evaluator(evaluate: Evaluate) -> Any:  # noqa: ANN401 - a handle of Ray
    """Starts the actor, on any node. One that is killed, or whose node is lost, starts again and evaluates
    again what it had not finished.
    """
    actor = ray.remote(EvaluatorActor).options(
        num_cpus=1, max_restarts=-1, max_task_retries=-1, runtime_env=actor_environment()
    )
    return actor.remote(evaluate)


class RemoteEvaluations:
    """The learner's side: policies that were sent and results that came."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 - a handle of Ray
        """`actor` is an EvaluatorActor."""
        self._actor = actor
        self._under_way: list[tuple[int, Any]] = []

    def begin(self, step: int, snapshot: PolicySnapshot) -> None:
        """Sends a policy and returns at once."""
        self._under_way.append((step, self._actor.evaluate.remote(snapshot)))

    def finished(self, wait: bool) -> list[Evaluation]:
        """Results that have come, in the order of their steps; all of them with `wait`."""
        found: list[Evaluation] = []
        while self._under_way:
            step, reference = self._under_way[0]
            if not wait and not ray.wait([reference], timeout=0)[0]:
                break
            del self._under_way[0]
            result = ray.get(reference)
            if isinstance(result, RemoteError):
                raise result.error()
            found.append(cast(Evaluation, (step, result)))
        return found
