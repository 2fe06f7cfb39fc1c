"""The rollout actor: one `CallExecutor` in a process of its own."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from mtrl.errors import EnvironmentFault, MtrlError
from mtrl.rollout import Call, CallExecutor, CallValue, Collect, PolicySnapshot
from mtrl.tasks import TaskSet, set_native_threads

from .weights import Publication, WeightReader

if TYPE_CHECKING:
    from ray.actor import ActorHandle


@dataclass(frozen=True)
class ActorFacts:
    """Where an actor runs."""

    pid: int
    node: str
    """Ray's id of the node."""
    modules: frozenset[str]
    """Top-level modules that are loaded."""


@dataclass(frozen=True)
class Mistake:
    """An error of ours that belongs to the caller, taken apart: not every one survives pickling."""

    kind: type[MtrlError]
    arguments: tuple[object, ...]
    fields: dict[str, object]
    trace: str

    @staticmethod
    def of(error: MtrlError) -> Mistake:
        """Takes the error apart; call it while the error is handled."""
        return Mistake(type(error), error.args, dict(error.__dict__), traceback.format_exc())

    def error(self) -> MtrlError:
        """The same error, with the actor's traceback as a note."""
        again = self.kind.__new__(self.kind, *self.arguments)
        again.__dict__.update(self.fields)
        again.add_note(f"raised in a rollout actor:\n{self.trace}")
        return again


@dataclass(frozen=True)
class Reply:
    """What a call came to; an environment's fault must not look like the death of its actor."""

    value: CallValue = None
    fault: EnvironmentFault | None = None
    mistake: Mistake | None = None

    @property
    def error(self) -> MtrlError | None:
        """What the call raised."""
        return self.fault if self.mistake is None else self.mistake.error()


class RolloutActor:
    """Carries out calls. A bug of ours raises; everything expected is a `Reply`."""

    def __init__(self, tasks: TaskSet, backends: Mapping[str, str]) -> None:
        """Builds nothing yet."""
        # the other processors belong to the other actors
        set_native_threads(1)
        self._executor = CallExecutor(tasks, backends)
        self._weights = WeightReader()

    def facts(self) -> ActorFacts:
        """Answers as soon as the actor is up."""
        modules = frozenset(name for name in sys.modules if "." not in name)
        return ActorFacts(os.getpid(), ray.get_runtime_context().get_node_id(), modules)

    def perform(self, call: Call, publication: Publication, store: ActorHandle) -> Reply:
        """Carries out a call with the policy of its submission, or with the newest where it says so."""

        def policy() -> PolicySnapshot:
            newest = isinstance(call, Collect) and call.newest
            return self._weights.newest(store) if newest else self._weights.exactly()

        _one_thread()
        self._weights.receive(publication)
        try:
            return Reply(self._executor.perform(call, policy))
        except EnvironmentFault as fault:
            return Reply(fault=fault)
        except MtrlError as error:
            return Reply(mistake=Mistake.of(error))


def _one_thread() -> None:
    """An actor has one processor; torch is asked only when a policy has loaded it already."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
