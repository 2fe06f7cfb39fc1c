"""Shares what replays hold among another number of replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

State = Mapping[str, Any]
Places = npt.NDArray[np.int64]


def split_replays(states: Sequence[State], part: int, parts: int, capacity: int) -> dict[str, Any]:
    """The state of replay `part` of `parts` that hold together what replays of these `states` held.

    Decisions that follow on each other stay together and in order, and every such chain goes to one part,
    in turn. Where a part exceeds `capacity`, its oldest rows are left out. No fragment continues where the
    last ones stopped.
    """
    rings = zip(*(state["rings"] for state in states), strict=True)
    return {"rings": [_split_rings(found, part, parts, capacity) for found in rings]}


def _split_rings(rings: Sequence[State], part: int, parts: int, capacity: int) -> dict[str, Any]:
    """As of `split_replays`, of one task."""
    ages = [_ages(ring) for ring in rings]
    first = np.cumsum([0, *map(len, ages)])
    arrays = {name: np.concatenate([ring["arrays"][name] for ring in rings]) for name in rings[0]["arrays"]}
    begins = arrays["begins"]
    successor = np.concatenate(
        [ring["arrays"]["successor"] + at for ring, at in zip(rings, first[:-1], strict=True)]
    )
    begun = np.flatnonzero(begins)
    before = np.arange(len(begins))
    before[successor[begun]] = begun
    # root[r] <- root[root[r]] until it stands: the first row of the chain
    root = before
    while not np.array_equal(following := root[root], root):
        root = following
    # oldest first; rows of one replay in the order in which they were written
    order = np.argsort(np.concatenate(ages), kind="stable")
    held = begins.copy()
    held[successor[begun]] = True
    order = order[held[order]]
    chains, chain = np.unique(root[order], return_inverse=True)
    # chains in the order of their first rows
    seen = np.full(len(chains), len(order))
    np.minimum.at(seen, chain, np.arange(len(order)))
    turn = np.empty(len(chains), dtype=np.int64)
    turn[np.argsort(seen)] = np.arange(len(chains))
    chosen = order[turn[chain] % parts == part][-capacity:]
    slots = np.zeros(len(begins), dtype=np.int64)
    slots[chosen] = np.arange(len(chosen))
    taken = {name: rows[chosen] for name, rows in arrays.items()}
    taken["successor"] = slots[successor[chosen]] * taken["begins"]
    return {"written": len(chosen), "links": np.empty((0, 4), dtype=np.int64), "arrays": taken}


def _ages(ring: State) -> Places:
    """[rows in use], numbers of the rows as they were written, below 0 and -1 for the newest."""
    used, written = len(ring["arrays"]["begins"]), int(ring["written"])
    oldest = written - used
    return oldest + (np.arange(used) - oldest) % max(1, used) - written
