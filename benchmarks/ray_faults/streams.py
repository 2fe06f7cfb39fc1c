"""Trials on continuous collection: an actor or its node is killed or frozen, or an environment misbehaves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mtrl import registry
from mtrl.distributed import fragments_for
from mtrl.distributed.ray_actors import RayActors
from mtrl.errors import EnvironmentFault
from mtrl.rollout import CollectionConfig, Event, Fragment, Lost, PolicySnapshot, PoolFragments, RuntimeConfig

from .environments import FOLDER, KINDS, task_name
from .ledger import Ledger, lane_of
from .nodes import TwoNodes, alive, signal_all

TASKS = ("gym/CartPole-v1", "gym/Pendulum-v1")
COLLECTION = CollectionConfig(copies=2, steps=16)
PATIENCE_SECONDS = 240.0
"""After which a trial has not recovered."""
AFTERWARDS = 40
"""Fragments that must come in order after the work has moved."""
PLACEMENTS = 10
"""Times that a collection is begun anew for an actor on each node."""
LEAK_LIMIT_BYTES = 700 * 2**20
"""Memory at which a process that leaks is killed, as the system would."""
HANG_SECONDS, LEAK_SECONDS = 4.0, 60.0
"""How long a process may take to answer where it hangs, and where it leaks: filling memory takes its time."""


@dataclass
class Trial:
    """What became of one fault."""

    recovered: bool = False
    moved_s: float = PATIENCE_SECONDS
    """From the fault to a new fragment of every lane that was hit."""
    late: int = 0
    """Fragments of replaced actors that were delivered."""
    disordered: int = 0
    """Fragments that came twice, or after a gap."""
    lost_fragments: int = 0
    """Fragments that were asked for, begun, and lost with an actor or with its node's object store."""


class Collection:
    """Two actors, whose fragments are taken as fast as they come."""

    def __init__(self, address: str, tasks: tuple[str, ...] = TASKS, **runtime: float) -> None:
        self.faults: list[EnvironmentFault] = []
        config = RuntimeConfig(kind="ray", actors=2, address=address, **runtime)  # type: ignore[arg-type]
        source = fragments_for(
            registry.task_set(list(tasks)), config, COLLECTION, PolicySnapshot("random"), 1,
            lambda fault, last: self.faults.append(fault), [1.0] * len(tasks),
        )  # fmt: skip
        assert isinstance(source, PoolFragments) and isinstance(source.backend, RayActors)
        self.source, self.backend, self.ledger = source, source.backend, Ledger()
        self.lost_fragments = 0
        self._wait = source.backend.wait
        source.backend.wait = self._watched  # type: ignore[method-assign]
        self._stream: Iterator[Fragment] = source.stream()

    def take(self, until: Callable[[], bool], least: int = 0) -> bool:
        """Takes fragments until then, at least so many; False when it takes too long."""
        deadline, count = time.monotonic() + PATIENCE_SECONDS, 0
        while count < least or not until():
            if time.monotonic() > deadline:
                return False
            self.ledger.add(next(self._stream))
            count += 1
        return True

    def _watched(self, seconds: float) -> list[Event]:
        events = self._wait(seconds)
        self.lost_fragments += sum(isinstance(e, Lost) and e.running is not None for e in events)
        return events

    def slot_on(self, node: str) -> int:
        """The slot whose actor runs on a node, or does not, for a node that begins with "!"."""
        facts = self.backend.facts()
        return next(
            i for i, found in enumerate(facts) if (found.node == node.lstrip("!")) != (node[0] == "!")
        )

    def close(self) -> None:
        self.source.close()


def hit(collection: Collection, slot: int, fault: Callable[[int], None]) -> Trial:
    """Does something to a slot's actor, whose process `fault` gets, and waits for its lanes."""
    ledger, trial = collection.ledger, Trial()
    # both actors deliver
    collection.take(lambda: len(ledger.epochs) == len(TASKS), least=2 * AFTERWARDS)
    before = {lane: ledger.epochs[lane] for lane in map(lane_of, collection.source.lanes[slot])}
    pid, began = collection.backend.facts()[slot].pid, time.monotonic()
    fault(pid)
    if collection.take(lambda: all(ledger.epochs[lane] > epoch for lane, epoch in before.items())):
        trial.moved_s = time.monotonic() - began
        home = len(before)
        # the actor is replaced, and has its lanes again
        trial.recovered = collection.take(lambda: len(collection.source.lanes[slot]) == home, AFTERWARDS)
    return trial


def finished(collection: Collection, trial: Trial) -> dict[str, object]:
    """The trial with what the ledger found."""
    trial.late, trial.disordered = collection.ledger.late, collection.ledger.disordered
    trial.lost_fragments = collection.lost_fragments
    trial.recovered &= not trial.late and not trial.disordered and not collection.source.quarantined
    return asdict(trial)


@contextmanager
def collecting(nodes: TwoNodes, *tasks: str, on_both: bool = False, **runtime: float) -> Iterator[Collection]:
    """Collection; with `on_both` begun anew until each node has an actor: Ray may place both on the head."""
    for _ in range(PLACEMENTS):
        with closing(Collection(nodes.address, tasks or TASKS, **runtime)) as collection:
            collection.take(lambda: len(collection.backend.facts()) == 2, least=1)
            if not on_both or len({found.node for found in collection.backend.facts()}) == 2:
                yield collection
                return
    raise RuntimeError(f"Ray placed both actors on one node {PLACEMENTS} times; expected one on each")


def actor_killed(nodes: TwoNodes) -> dict[str, object]:
    """SIGKILL of a rollout actor."""
    with collecting(nodes) as collection:
        return finished(collection, hit(collection, 0, lambda pid: os.kill(pid, signal.SIGKILL)))


def actor_frozen(nodes: TwoNodes) -> dict[str, object]:
    """SIGSTOP of a rollout actor."""
    with collecting(nodes) as collection:
        return finished(collection, hit(collection, 0, lambda pid: os.kill(pid, signal.SIGSTOP)))


def node_killed(nodes: TwoNodes) -> dict[str, object]:
    """SIGKILL of every process of a node."""
    with collecting(nodes, on_both=True) as collection:
        slot = collection.slot_on(nodes.second.node_id)
        trial = hit(collection, slot, lambda pid: nodes.kill())
        found = finished(collection, trial)
    nodes.add()
    return found


def node_frozen(nodes: TwoNodes) -> dict[str, object]:
    """SIGSTOP of every process of a node, which comes back; its actor must end."""
    with collecting(nodes, on_both=True) as collection:
        slot, frozen = collection.slot_on(nodes.second.node_id), list[int]()
        old = collection.backend.facts()[slot].pid
        ledger = collection.ledger
        collection.take(lambda: len(ledger.epochs) == len(TASKS), least=2 * AFTERWARDS)
        before = {lane: ledger.epochs[lane] for lane in map(lane_of, collection.source.lanes[slot])}
        trial, began = Trial(), time.monotonic()
        frozen += nodes.freeze()
        if collection.take(lambda: all(ledger.epochs[lane] > epoch for lane, epoch in before.items())):
            trial.moved_s = time.monotonic() - began
        signal_all(frozen, signal.SIGCONT)
        trial.recovered = collection.take(lambda: not alive(old), AFTERWARDS)
        trial.recovered &= collection.take(lambda: len(collection.source.lanes[slot]) == 1, AFTERWARDS)
        found = finished(collection, trial)
    # the head may have given it up meanwhile
    nodes.kill()
    nodes.add()
    return found


def environment(nodes: TwoNodes, kind: str) -> dict[str, object]:
    """An environment that misbehaves once; its lane must go on, and the other as if nothing were."""
    mark = Path(os.environ[FOLDER], kind)
    mark.unlink(missing_ok=True)
    patience = LEAK_SECONDS if kind == "leaks" else HANG_SECONDS
    with collecting(nodes, TASKS[0], task_name(kind), job_timeout_seconds=patience) as collection:
        ledger, trial = collection.ledger, Trial()

        def comes() -> bool:
            if kind == "leaks":
                kill_beyond(mark, LEAK_LIMIT_BYTES)
            return mark.exists() and mark.read_text(encoding="utf-8") != ""

        trial.recovered = collection.take(comes)
        began = time.monotonic()

        def moved() -> bool:
            comes()
            return ledger.epochs.get((1, 0), 0) > 0

        trial.recovered &= collection.take(moved, AFTERWARDS)
        trial.moved_s = time.monotonic() - began
        trial.recovered &= collection.take(lambda: ledger.epochs[1, 0] < 4, AFTERWARDS)
        # a process that was killed from outside proves nothing against its task
        trial.recovered &= (len(collection.faults) > 0) == (kind != "leaks")
        return finished(collection, trial)


def kill_beyond(mark: Path, limit: int) -> None:
    """Kills the process of a mark when it holds more memory than that, as a system short of memory does."""
    if not mark.exists() or not (text := mark.read_text(encoding="utf-8")):
        return
    try:
        pages = int(Path(f"/proc/{text}/statm").read_text().split()[1])
    except OSError:
        return
    if pages * os.sysconf("SC_PAGE_SIZE") > limit:
        signal_all([int(text)], signal.SIGKILL)


STREAMS: dict[str, Callable[[TwoNodes], dict[str, object]]] = {
    "actor_killed": actor_killed,
    "actor_frozen": actor_frozen,
    "node_killed": node_killed,
    "node_frozen": node_frozen,
    **{f"environment_{kind}": (lambda nodes, kind=kind: environment(nodes, kind)) for kind in KINDS},
}
