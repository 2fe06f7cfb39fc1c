"""The guard of the joints run again on the record of a flight."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrl.errors import IntegrityError

from ..guard.guard import JOINT_LIMITS
from ..realtime.records import Column
from ..robots.fit import kinematics_of
from ..robots.joint_guard import JointGuard
from ..robots.site import Site
from ..robots.terms import action_terms
from .flight import Flight, Float64


@dataclass(frozen=True)
class JointReplay:
    """What the joints' guard computes from a log."""

    positions: int
    """Decisions whose joint positions were computed again."""
    different: tuple[int, ...]
    """Rows of those that are not bit-equal to what was commanded."""
    missing: int
    """Decisions that could not be: the servo did not see the observation before."""
    unavailable: str = ""
    """Why none could be computed; empty otherwise."""


def replay_joints(flight: Flight) -> JointReplay:
    """Computes every decision's joint positions again, from the state before it and the action.

    Of a flight in shadow there are none: nothing was worked out for the robot.
    """
    if not flight.site:
        return JointReplay(0, (), 0)
    site = Site.from_json(flight.site)
    try:
        kinematics = kinematics_of(site, Path("robot.yaml"), flight.model)
    except IntegrityError as error:
        return JointReplay(0, (), 0, f"the model needs files that the log does not hold: {error}")
    terms = action_terms(site.binding(flight.task).action, flight.names)
    guard = JointGuard(site, terms, flight.rate_hz, kinematics)
    applied, state, place = _parts(flight, len(guard.state))
    ticks = flight.column(Column.TICK).astype(np.int64)
    _, rows = np.unique(ticks, return_index=True)
    computed, missing, different = 0, 0, []
    for before, row in itertools.pairwise(rows):
        if before == rows[0]:
            guard.begin(state[before][: len(flight.names)])
        if np.isnan(applied[row]).any():
            continue
        if ticks[row] != ticks[before] + 1:
            missing += 1
            continue
        guard.state[:] = state[before]
        guard.target(applied[row])
        computed += 1
        if guard.state.tobytes() != state[row].tobytes() or place[row] != int(guard.flags):
            different.append(int(row))
    return JointReplay(computed, tuple(different), missing)


def _parts(flight: Flight, state_size: int) -> tuple[Float64, Float64, np.ndarray]:
    """Actions [N, A], states of the joints' guard and its findings [N] of every row."""
    size = flight.command.shape[1]
    found = flight.column(Column.BREACH).astype(np.int64) & int(JOINT_LIMITS)
    return flight.joints[:, :size], flight.joints[:, -state_size:], found
