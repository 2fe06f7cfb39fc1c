"""What a flight in shadow finds: where a policy would have sent the joints, against where they went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrl.errors import IntegrityError

from ..artefact.joints import UNITS
from ..guard.guard import VIOLATIONS
from ..realtime.records import Column
from ..robots.fit import kinematics_of
from ..robots.joint_guard import JointGuard
from ..robots.site import Site
from ..robots.terms import action_terms
from .flight import Flight

NEGLIGIBLE = 0.05
"""Share of what a joint's velocity limit allows in a decision, below which a difference counts as noise."""
UNLIKE = 0.5
"""Share of the larger of two motions by which they must differ to count as a mismatch."""


@dataclass(frozen=True)
class ShadowFinding:
    """The policy beside whoever moved the robot."""

    compared: int
    """Decisions with a motion of either side, held ones left out."""
    mismatches: int
    """Of these, those in which a joint would have moved otherwise."""
    largest: float
    """Largest difference of a joint's motion in one decision, in `unit`."""
    unit: str
    """Of the joint, as in `robot.yaml`; empty without a mismatch."""
    joint: str
    """The joint of it."""
    tick: int
    """The decision of it."""
    at_s: float
    """When that was, in seconds after the first observation."""
    unavailable: str = ""
    """Why nothing could be compared; empty otherwise."""

    def __str__(self) -> str:
        if self.unavailable:
            return f"nothing was compared in shadow: {self.unavailable}"
        said = f"in shadow {self.mismatches} of {self.compared} decisions would have moved a joint otherwise"
        if not self.mismatches:
            return said
        return (
            f"{said}; the largest, {self.largest:.3g} {self.unit} of {self.joint}, in decision {self.tick} "
            f"({self.at_s:.2f} s)"
        )


def shadow_finding(flight: Flight) -> ShadowFinding | None:
    """Compares every decision's joint motion; None of a flight that was not in shadow.

    A command acts one decision after its observation. So for the command of observation t, the joints' guard
    computes where the joints would have been sent from where they were measured at t + 1, in the motion that
    they had, and the measurement of t + 2 says where they went.
    """
    if flight.mode != "shadow" or not flight.site:
        return None
    site = Site.from_json(flight.site)
    try:
        kinematics = kinematics_of(site, Path("robot.yaml"), flight.model)
    except IntegrityError as error:
        why = f"the model needs files that the log does not hold: {error}"
        return ShadowFinding(0, 0, 0.0, "", "", 0, 0.0, why)
    terms = action_terms(site.binding(flight.task).action, flight.names)
    guard = JointGuard(site, terms, flight.rate_hz, kinematics)
    first, count = flight.command.shape[1], len(flight.names)
    measured = flight.joints[:, first : first + count]
    reach = guard.limits.velocity / flight.rate_hz
    ticks = flight.column(Column.TICK).astype(np.int64)
    held = flight.column(Column.FLAGS).astype(np.int64) & int(VIOLATIONS)
    _, rows = np.unique(ticks, return_index=True)
    compared = mismatches = 0
    worst, found = 0.0, (0, 0)
    for row, after, end in zip(rows, rows[1:], rows[2:], strict=False):
        if held[row] or ticks[end] != ticks[row] + 2:
            continue
        guard.begin(measured[after])
        guard.change[:] = measured[after] - measured[row]
        mine = guard.target(flight.command[row]) - measured[after]
        theirs = measured[end] - measured[after]
        larger, apart = np.maximum(np.abs(mine), np.abs(theirs)), np.abs(mine - theirs)
        compared += bool((larger > NEGLIGIBLE * reach).any())
        unlike = (apart > NEGLIGIBLE * reach) & (apart > UNLIKE * larger)
        mismatches += bool(unlike.any())
        share = np.where(unlike, apart / reach, 0.0)
        if share.max() > worst:
            worst, found = float(share.max()), (int(row), int(share.argmax()))
    if not mismatches:
        return ShadowFinding(compared, 0, 0.0, "", "", 0, 0.0)
    row, index = found
    joint = site.joints[index]
    observed = flight.column(Column.OBSERVED)
    return ShadowFinding(
        compared,
        mismatches,
        worst * float(reach[index]) / UNITS[joint.unit],
        joint.unit,
        joint.name,
        int(ticks[row]),
        float(observed[row] - observed[rows[0]]),
    )
