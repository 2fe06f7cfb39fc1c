"""The rollout actor: one `CallExecutor` in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from mtrl.errors import MtrlError
from mtrl.rollout import Call, CallExecutor, CallValue, Collect, GuardedExecutor, PolicySnapshot, RemoteError
from mtrl.tasks import TaskSet, set_native_threads

from .weights import Publication, WeightReader

if TYPE_CHECKING:
    from ray.actor import ActorHandle


LEASE = "lease"
"""Ray's concurrency group of `RolloutActor.renew`, which is answered while a call runs."""
NODE_PROOF_BYTES = 2**17
"""Size of an answer that passes through the object stores of both nodes, as fragments do."""


@dataclass(frozen=True)
class ActorFacts:
    """Where an actor runs."""

    pid: int
    node: str
    """Ray's id of the node."""
    modules: frozenset[str]
    """Top-level modules that are loaded."""


@dataclass(frozen=True)
class Reply:
    """The outcome of a call; an environment's fault must not look like the death of its actor."""

    value: CallValue = None
    error: RemoteError | None = None


class RolloutActor:
    """Carries out calls. A bug raises; everything expected is a `Reply`."""

    def __init__(
        self, tasks: TaskSet, backends: Mapping[str, str], lease: float, guard: float | None = None
    ) -> None:
        """Builds no environment yet; with `guard`, the longest seconds of a call, in a `GuardedExecutor`. An
        actor that stood still for `lease` seconds was replaced meanwhile, and ends.
        """
        # Ctrl-C is for the driver, which decides what it means
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # the other processors belong to the other actors
        set_native_threads(1)
        self._executor: CallExecutor | GuardedExecutor
        if guard is None:
            self._executor = CallExecutor(tasks, backends)
        else:
            self._executor = GuardedExecutor(tasks, backends, guard)
        self._weights = WeightReader()
        threading.Thread(target=_hold_lease, args=(lease,), daemon=True).start()

    def facts(self) -> ActorFacts:
        """Where the actor runs; the first answer of one that has started."""
        modules = frozenset(name for name in sys.modules if "." not in name)
        return ActorFacts(os.getpid(), ray.get_runtime_context().get_node_id(), modules)

    @ray.method(concurrency_group=LEASE)
    def renew(self, elsewhere: bool) -> bytes:
        """Shows that the actor runs, and to a driver `elsewhere` that its node delivers."""
        return bytes(NODE_PROOF_BYTES if elsewhere else 0)

    def perform(self, call: Call, publication: Publication, store: ActorHandle) -> Reply:
        """Carries out a call with the policy of its submission, or with the newest if it asks for that."""

        def policy() -> PolicySnapshot:
            newest = isinstance(call, Collect) and call.newest
            return self._weights.newest(store) if newest else self._weights.exactly()

        _one_thread()
        self._weights.receive(publication)
        try:
            return Reply(self._executor.perform(call, policy))
        except (MtrlError, SystemExit, KeyboardInterrupt) as error:
            # Ray would end the actor for the last two, or take the call for one that was cancelled
            return Reply(error=RemoteError.of(error))


def _hold_lease(seconds: float) -> None:
    """Ends the process when it has stood still for longer."""
    seen = time.monotonic()
    while (now := time.monotonic()) - seen < seconds:
        seen = now
        time.sleep(seconds / 10)
    os._exit(1)


def _one_thread() -> None:
    """Limits torch, where a policy has loaded it, to the actor's one processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
