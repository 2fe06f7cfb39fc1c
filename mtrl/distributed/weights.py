"""Versioned weights: published once, pulled by actors when they are behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtrl.rollout import PolicySnapshot

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

KEPT = 2
"""Publications kept: the newest, and the one that an actor may be fetching right now."""


class WeightsLost(Exception):
    """The weight store does not answer; the driver starts another one."""


class WeightStore:
    """The actor that holds references to the last publications; the arrays lie in the object store."""

    def __init__(self) -> None:
        """Empty."""
        self._references: dict[int, list[ObjectRef]] = {}

    def publish(self, publication: int, reference: list[ObjectRef]) -> None:
        """Keeps a publication; `reference` is a list of one, so that Ray passes it unopened."""
        self._references[publication] = reference
        for old in sorted(self._references)[:-KEPT]:
            del self._references[old]

    def pull_if_newer(self, publication: int) -> tuple[int, list[ObjectRef]] | None:
        """The newest publication if it is newer than the caller's, else None."""
        newest = max(self._references, default=publication)
        return (newest, self._references[newest]) if newest > publication else None

    def kept(self) -> list[int]:
        """Numbers of the publications still held."""
        return sorted(self._references)


class WeightPublisher:
    """The driver's side: puts each snapshot into the object store once and numbers it."""

    def __init__(self) -> None:
        """Starts the store on the driver's node, where it lives as long as the driver."""
        self.publication = 0
        self._references: dict[int, list[ObjectRef]] = {}
        self._snapshot: PolicySnapshot | None = None
        self.store: ActorHandle = self._start()

    def publish(self, snapshot: PolicySnapshot) -> int:
        """Number of the publication; the same object published twice in a row keeps its number."""
        if snapshot is not self._snapshot:
            self.publication += 1
            self._snapshot = snapshot
            self._references[self.publication] = [ray.put(snapshot)]
            for old in sorted(self._references)[:-KEPT]:
                del self._references[old]
            try:
                ray.get(self.store.publish.remote(self.publication, self._references[self.publication]))
            except RayActorError:
                self.restart()
        return self.publication

    def restart(self) -> None:
        """Replaces a dead store by one that holds the newest publication."""
        self.close()
        self.store = self._start()
        ray.get(self.store.publish.remote(self.publication, self._references[self.publication]))

    def close(self) -> None:
        """Ends the store."""
        ray.kill(self.store)

    def _start(self) -> ActorHandle:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        store = ray.remote(WeightStore).options(num_cpus=0, scheduling_strategy=here).remote()
        return cast("ActorHandle", store)


class WeightReader:
    """The actor's side: keeps the snapshot it pulled last."""

    def __init__(self) -> None:
        """Nothing pulled yet."""
        self.publication = 0
        self._snapshot: PolicySnapshot | None = None

    def at_least(self, publication: int, store: ActorHandle) -> PolicySnapshot:
        """A snapshot of that publication or a newer one; asks the store only when behind."""
        if self.publication < publication:
            self.newest(store)
        if self._snapshot is None or self.publication < publication:
            raise WeightsLost(f"publication {publication} was asked for, the newest is {self.publication}")
        return self._snapshot

    def newest(self, store: ActorHandle) -> PolicySnapshot:
        """The newest snapshot, or the last one pulled when the store does not answer."""
        pulled: tuple[int, list[ObjectRef]] | None = None
        try:
            pulled = ray.get(cast("Any", store).pull_if_newer.remote(self.publication))
        except RayActorError as error:
            if self._snapshot is None:
                raise WeightsLost(str(error)) from error
        if pulled is not None:
            newest, (reference,) = pulled
            fresh: PolicySnapshot = ray.get(reference)
            self.publication, self._snapshot = newest, fresh
        if self._snapshot is None:
            raise WeightsLost("nothing is published yet")
        return self._snapshot
