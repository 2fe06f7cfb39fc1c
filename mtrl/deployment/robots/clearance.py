"""How near an arm is to itself: the distance between capsules of its model that are no neighbours."""

from __future__ import annotations

import itertools

import mujoco

FAR_M = 1.0
"""Distance beyond which two parts count as this far apart."""
NEIGHBOURS = 2
"""Joints between two parts up to which they are neighbours: around a joint capsules overlap."""


def distant_pairs(model: mujoco.MjModel) -> list[tuple[int, int]]:
    """Pairs of capsules and spheres with more than `NEIGHBOURS` moving bodies from one to the other.

    Bodies without a joint count as part of their parent, and the world as a body. Other shapes are left out.
    """
    round_shapes = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE)
    parts = [geom for geom in range(model.ngeom) if model.geom_type[geom] in round_shapes]
    chains = {geom: _chain(model, int(model.geom_bodyid[geom])) for geom in parts}
    return [
        (one, other)
        for one, other in itertools.combinations(parts, 2)
        if len(chains[one] ^ chains[other]) > NEIGHBOURS
    ]


def least_distance(model: mujoco.MjModel, data: mujoco.MjData, pairs: list[tuple[int, int]]) -> float:
    """Of the pairs, in metres, below 0 where they overlap; `FAR_M` at most, and without a pair."""
    return min(
        (mujoco.mj_geomDistance(model, data, one, other, FAR_M, None) for one, other in pairs), default=FAR_M
    )


def _chain(model: mujoco.MjModel, body: int) -> frozenset[int]:
    """The moving bodies from this one to the world."""
    chain = []
    while body := int(model.body_weldid[body]):
        chain.append(body)
        body = int(model.body_parentid[body])
    return frozenset(chain)
