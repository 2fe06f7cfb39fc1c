"""Versioned weights: published once, sent with an actor's next call, pulled where a call takes the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtrl.rollout import PolicySnapshot

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

Publication = tuple[int, "list[ObjectRef]"]
"""Number of a publication and its snapshot in the object store; a list of one, so that Ray passes it
unopened."""


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Places an actor on the node of the caller."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class WeightStore:
    """The actor that holds the last publications; the arrays are in the object store."""

    def __init__(self) -> None:
        """Empty."""
        self.references: dict[int, list[ObjectRef]] = {}

    def publish(self, publication: int, reference: list[ObjectRef], keep: int) -> None:
        """Keeps a publication, and of the older ones so many that they are `keep` together."""
        self.references[publication] = reference
        for old in sorted(self.references)[:-keep]:
            del self.references[old]

    def pull_if_newer(self, publication: int) -> Publication | None:
        """The newest publication if it is newer than the caller's, else None."""
        newest = max(self.references, default=publication)
        return (newest, self.references[newest]) if newest > publication else None


class WeightPublisher:
    """The driver's side: puts each snapshot into the object store once and numbers it."""

    def __init__(self) -> None:
        """Starts the store on the driver's node; it ends with the driver."""
        self.newest: Publication = (0, [])
        """Sent to an actor with its next call, which does not depend on the store then."""
        self._snapshot: PolicySnapshot | None = None
        self.store: ActorHandle = self._start()

    def publish(self, snapshot: PolicySnapshot, keep: int) -> None:
        """Returns once the store has it; one equal to the last is not published again."""
        if self._snapshot is not None and self._snapshot.same_as(snapshot):
            return
        self._snapshot = snapshot
        self.newest = (self.newest[0] + 1, [ray.put(snapshot)])
        try:
            ray.get(self.store.publish.remote(*self.newest, keep))
        except RayActorError:
            # replaced by one that holds the newest publication
            self.close()
            self.store = self._start()
            ray.get(self.store.publish.remote(*self.newest, keep))

    def close(self) -> None:
        """Ends the store."""
        ray.kill(self.store)

    def _start(self) -> ActorHandle:
        store = ray.remote(WeightStore).options(num_cpus=0, scheduling_strategy=on_this_node())
        return cast("ActorHandle", store.remote())


class WeightReader:
    """The actor's side: keeps the snapshot it used last."""

    def __init__(self) -> None:
        """Nothing received yet."""
        self._received: Publication = (0, [])
        self._number = 0
        self._snapshot: PolicySnapshot | None = None

    def receive(self, publication: Publication) -> None:
        """Keeps the publication of the calls from now on; without a reference it is that of the last call."""
        if publication[1]:
            self._received = publication

    def exactly(self) -> PolicySnapshot:
        """The snapshot of the publication received last."""
        return self._fetched(self._received)

    def newest(self, store: ActorHandle) -> PolicySnapshot:
        """The newest snapshot in the store; where it does not answer, the newest received."""
        known = max(self._number, self._received[0])
        try:
            pulled: Publication | None = ray.get(cast("Any", store).pull_if_newer.remote(known))
        except RayActorError:
            pulled = None
        if pulled is None and self._snapshot is not None and self._number == known:
            return self._snapshot
        return self._fetched(pulled or self._received)

    def _fetched(self, publication: Publication) -> PolicySnapshot:
        number, (reference,) = publication
        if self._snapshot is None or self._number != number:
            self._snapshot, self._number = cast(PolicySnapshot, ray.get(reference)), number
        return self._snapshot
