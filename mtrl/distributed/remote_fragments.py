"""Continuous collection by an actor, for learners in other processes of the cluster.

The server supervises the rollout actors and outlives the learner: one that is restarted continues with the
same `RemoteFragments`, and gets a fragment again that its predecessor did not acknowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import ray

from mtrl.errors import EnvironmentFault, MtrlError, TakenOverError
from mtrl.rollout import (
    CollectionConfig,
    Delivery,
    FaultHandler,
    FaultLog,
    Fragment,
    Fragments,
    PolicySnapshot,
    PoolFragments,
    RemoteError,
    RuntimeConfig,
    Version,
)
from mtrl.tasks import TaskSet

from .cluster import actor_environment
from .pools import fragments_for
from .weights import on_this_node

if TYPE_CHECKING:
    from ray.actor import ActorHandle


@dataclass(frozen=True)
class Answer:
    """The outcome of a call to the server."""

    value: object
    error: RemoteError | None
    quarantined: dict[int, str]
    faults: list[tuple[EnvironmentFault, bool]]
    """Those since the last answer."""


class FragmentServer:
    """The actor: a `PoolFragments`, called by name of its methods. It collects while a call waits for a
    fragment, and its workers run ahead as far as the delivery lets them.
    """

    def __init__(self) -> None:
        """The source comes with the first call, `open`."""
        self._source: PoolFragments | None = None
        self._held: tuple[int, Fragment] | None = None
        """The last fragment and its number, until it is acknowledged."""
        self._consumer = 0
        self._faults: list[tuple[EnvironmentFault, bool]] = []

    def call(self, consumer: int, method: str, *arguments: object) -> Answer:
        """Calls a method of the source, or of this class; errors of mtrl come back as data. A consumer of a
        higher number replaces the one before, which gets a TakenOverError.
        """
        value, error = None, None
        try:
            if consumer < self._consumer:
                raise TakenOverError(f"learner {consumer} was replaced by learner {self._consumer}")
            self._consumer = consumer
            target = self if method in ("open", "take") else self._source
            value = getattr(target, method)(*arguments)
        except MtrlError as raised:
            error = RemoteError.of(raised)
        faults, self._faults = self._faults, []
        return Answer(value, error, dict(self._source.quarantined) if self._source else {}, faults)

    def open(self, make: Callable[..., Fragments]) -> None:
        """Starts the rollout actors; `make` takes a fault handler as `on_fault`."""
        source = make(on_fault=lambda fault, last: self._faults.append((fault, last)))
        assert isinstance(source, PoolFragments), "a server is for runtime.kind=ray"
        self._source = source

    def take(self, acknowledged: int) -> tuple[int, Fragment] | None:
        """The fragment after the one of the acknowledged number; None when every task is in quarantine."""
        assert self._source is not None, "the source is opened first"
        if self._held is None or self._held[0] != acknowledged + 1:
            self._held = None
            fragment = next(self._source.stream(), None)
            self._held = None if fragment is None else (acknowledged + 1, fragment)
        return self._held


class RemoteFragments:
    """`Fragments` of a server; may be sent to any process of the cluster, one of which consumes."""

    def __init__(self, server: ActorHandle) -> None:
        """`server` is a FragmentServer."""
        self._server = cast("Any", server)
        self.consumer = 0
        """Number of this consumer; with a higher one than any before it takes over."""
        self.taken = 0
        """Number of the last fragment that came. Asking for the next acknowledges it."""
        self.quarantined: dict[int, str] = {}
        self.by_arrival = True
        self.on_fault: FaultHandler = FaultLog()

    @staticmethod
    def start(
        tasks: TaskSet,
        config: RuntimeConfig,
        collection: CollectionConfig,
        snapshot: PolicySnapshot,
        seed: int,
        step_seconds: Sequence[float] | None = None,
        *,
        delivery: Delivery = "arrival",
    ) -> RemoteFragments:
        """Starts a server on this node, which runs until `end` and no longer than this process. Ray must be
        joined before, by `connect`. Arguments and errors as of `fragments_for`.
        """
        actor = ray.remote(FragmentServer).options(
            num_cpus=0, scheduling_strategy=on_this_node(), runtime_env=actor_environment()
        )
        remote = RemoteFragments(cast("ActorHandle", actor.remote()))
        remote.by_arrival = delivery == "arrival"
        make = partial(fragments_for, tasks, config, collection, snapshot, seed)
        remote._call("open", partial(make, step_seconds=step_seconds, delivery=delivery))
        return remote

    def publish(self, snapshot: PolicySnapshot) -> Version:
        """As of Fragments; the weight store has it when this returns."""
        return cast(Version, self._call("publish", snapshot))

    def set_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """As of Fragments."""
        self._call("set_shares", shares)

    def stream(self) -> Iterator[Fragment]:
        """As of Fragments."""
        while True:
            found = cast("tuple[int, Fragment] | None", self._call("take", self.taken))
            if found is None:
                return
            self.taken, fragment = found
            yield fragment

    def state_dict(self) -> dict[str, Any]:
        """As of Fragments."""
        return cast("dict[str, Any]", self._call("state_dict"))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As of Fragments."""
        self._call("load_state_dict", state)

    def close(self) -> None:
        """Leaves the workers to the next consumer; `end` ends them."""

    def end(self) -> None:
        """Ends the server, and with it its workers; called where `start` was."""
        ray.kill(self._server)

    def _call(self, method: str, *arguments: object) -> object:
        answer: Answer = ray.get(self._server.call.remote(self.consumer, method, *arguments))
        self.quarantined.update(answer.quarantined)
        for fault, last in answer.faults:
            self.on_fault(fault, last)
        if answer.error is not None:
            raise answer.error.error()
        # arrays of the object store are read-only, and what is kept of them keeps their blocks there
        return deepcopy(answer.value)
