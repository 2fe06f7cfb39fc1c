"""The guard of a robot's joints: the last limits between an action and what moves.

Pure like the guard before it: the same calls give the same joint positions bit for bit, which is how
`mtrl replay` checks a flight log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..artefact.joints import UNITS
from ..guard.guard import GuardFlag
from .joints import Float64, Reading
from .site import Site
from .terms import Term

if TYPE_CHECKING:
    from .kinematics import Kinematics

IK_STEPS = 20
"""Iterations of the tool's inverse kinematics in one decision; from the last solution three or four do."""
OVERSPEED = 1.5
"""Multiple of a joint's velocity limit beyond which its measured speed is a breach: controllers overshoot."""


class Limits:
    """Limits of a site's joints in radians, metres and seconds, each [J]."""

    def __init__(self, site: Site) -> None:
        unit = np.array([UNITS[joint.unit] for joint in site.joints])

        def limit(name: str) -> Float64:
            found = [getattr(joint, name) for joint in site.joints]
            return np.array([np.inf if value is None else value for value in found]) * unit

        self.acceleration, self.tracking = limit("acceleration"), limit("tracking")
        self.effort = limit("effort") / unit
        self.low, self.high, self.velocity = limit("low"), limit("high"), limit("velocity")
        self.start_low, self.start_high = limit("start_low"), limit("start_high")


class JointGuard:
    """Turns actions into joint positions, and applies in this order:

    1. the workspace, a box for the tool (`_with_tool`)
    2. inverse kinematics: a target without a solution is given up, the joints stay (`_with_tool`)
    3. each joint's positions (`target`)
    4. each joint's velocity, all joints slowed down alike (`target`)
    5. each joint's acceleration (`_accelerated`)
    6. the robot's distance from itself: what brings it too near is given up (`_meets_itself`)

    `breach` compares what is measured with the same limits.
    """

    def __init__(
        self, site: Site, action: Sequence[Term], rate_hz: float, kinematics: Kinematics | None
    ) -> None:
        """`action`: a term for each dimension. `kinematics` is needed where a term names the tool."""
        self.limits = limits = Limits(site)
        self._action = action
        self._workspace = site.workspace
        self._solved_m = site.solved_mm / 1000
        self._clearance_m = site.clearance_mm / 1000
        self._kinematics = kinematics
        self.moves_tool = any(term.kind == "tool" for term in action)
        self._reach, self._growth = limits.velocity / rate_hz, limits.acceleration / rate_hz**2
        self._beyond = site.smoothness * (limits.high - limits.low)
        count = len(site.joints)
        self.state = np.zeros(2 * count + 3)
        """What the next target follows from, of which the next three are views."""
        self.sent, self.change, self.tool = np.split(self.state, [count, 2 * count])
        """Positions that were commanded last [J], their change [J], and the tool's place [3]."""
        self.orientation: Float64 | None = None
        """The tool's rotation [3, 3], which stays."""
        self.flags = GuardFlag.NONE
        """Limits that changed the last target."""

    def begin(self, position: Float64) -> None:
        """A flight begins with the joints [J] at rest there."""
        self.sent[:] = position
        self.change[:] = 0.0
        self.flags = GuardFlag.NONE
        if self._kinematics is not None:
            self.tool[:] = self._kinematics.tool(position)
            self.orientation = self._kinematics.orientation(position)

    def outside(self) -> bool:
        """Whether the tool is outside the workspace, where even a hold would move it, back into it."""
        if not self.moves_tool or self._workspace is None:
            return False
        moved = np.clip(self.tool, self._workspace.low, self._workspace.high) - self.tool
        return bool(np.abs(moved).max() > self._solved_m)

    def target(self, action: Float64) -> Float64:
        """Joint positions [J] of an action [A], within every limit; the next call overwrites them."""
        self.flags = GuardFlag.NONE
        wanted = self.sent.copy()
        tool = self.tool.copy()
        for term, value in zip(self._action, action, strict=True):
            if term.kind == "tool":
                tool[term.index] += term.scale * value
            elif term.kind == "shift":
                wanted[term.index] += term.scale * value
            else:
                wanted[term.index] = term.scale * value + term.offset
        if self.moves_tool:
            wanted = self._with_tool(wanted, tool)
        limits = self.limits
        inside = np.clip(wanted, limits.low, limits.high)
        if (inside != wanted).any():
            self.flags |= GuardFlag.JOINT_POSITION_LIMITED
        change = inside - self.sent
        # all joints are slowed down alike, so that the tool keeps its direction
        slower = min(1.0, float((self._reach / np.maximum(np.abs(change), 1e-12)).min()))
        change = self._accelerated(slower * change)
        sent = np.clip(self.sent + change, limits.low, limits.high)
        arrives = np.allclose(sent, inside, rtol=0.0, atol=1e-12)
        if not arrives:
            self.flags |= GuardFlag.JOINT_RATE_LIMITED
        if self._meets_itself(sent):
            self.flags |= GuardFlag.SELF_COLLISION
            sent, arrives = self.sent, False
        self.change[:] = sent - self.sent
        self.sent[:] = sent
        if self.moves_tool and self._kinematics is not None and not arrives:
            # where the joints really go: a target that runs ahead of them would wind up
            self.tool[:] = self._kinematics.tool(self.sent)
        return self.sent

    def breach(self, reading: Reading, *, moves: bool, watches: bool) -> GuardFlag:
        """What is measured beyond a limit. `moves`: our commands move the robot. `watches`: somebody else
        does, who may go where we may not.
        """
        limits, found, position = self.limits, GuardFlag.NONE, reading.position
        beyond = (position < limits.low - self._beyond) | (position > limits.high + self._beyond)
        if beyond.any() and not watches:
            found |= GuardFlag.JOINT_BEYOND_LIMIT
        if (np.abs(reading.velocity) > OVERSPEED * limits.velocity).any() and moves:
            found |= GuardFlag.VELOCITY_BEYOND_LIMIT
        if (np.abs(reading.effort) > limits.effort).any():
            found |= GuardFlag.EFFORT_BEYOND_LIMIT
        if moves and (np.abs(position - self.sent) > limits.tracking).any():
            found |= GuardFlag.NOT_FOLLOWING
        if reading.stop and not watches:
            found |= GuardFlag.STOP_REQUESTED
        return found

    def too_near(self) -> float | None:
        """The distance from itself, in metres, of a robot that is nearer than the site allows."""
        if not self._clearance_m or self._kinematics is None:
            return None
        apart = self._kinematics.clearance(self.sent)
        return apart if apart < self._clearance_m else None

    def _meets_itself(self, sent: Float64) -> bool:
        """Whether positions [J] are too near, and nearer than those before: the way out stays open."""
        if not self._clearance_m or self._kinematics is None:
            return False
        apart = self._kinematics.clearance(sent)
        return apart < self._clearance_m and apart < self._kinematics.clearance(self.sent)

    def _with_tool(self, wanted: Float64, tool: Float64) -> Float64:
        """Joints that bring the tool to a place in the workspace; `wanted` where there are none."""
        assert self._kinematics is not None and self._workspace is not None, "see fit.py"
        place = np.clip(tool, self._workspace.low, self._workspace.high)
        solution = self._kinematics.solve(wanted, place, self.orientation, IK_STEPS)
        if not solution.solved(self._solved_m):
            self.flags |= GuardFlag.IK_UNSOLVED
            return wanted
        if (place != tool).any():
            self.flags |= GuardFlag.WORKSPACE_LIMITED
        self.tool[:] = place
        return solution.position

    def _accelerated(self, change: Float64) -> Float64:
        """A change of the joints [J] whose own change is within the limits of acceleration, and from which
        every joint still comes to rest before its end; as it was where the tool would leave the workspace.
        """
        growth, limits = self._growth, self.limits
        if not np.isfinite(growth).any():
            return change
        # slowing down by `growth` g a decision, a joint at v comes to rest within (v + g / 2)^2 / 2 g
        room = np.stack([self.sent - limits.low, limits.high - self.sent])
        with np.errstate(invalid="ignore"):
            down, up = np.maximum(np.sqrt(2 * growth * room) - growth / 2, 0.0)
        low = np.maximum(self.change - growth, -np.where(np.isfinite(growth), down, np.inf))
        high = np.minimum(self.change + growth, np.where(np.isfinite(growth), up, np.inf))
        limited = np.clip(change, np.minimum(low, high), np.maximum(low, high))
        workspace = self._workspace
        if self.moves_tool and workspace is not None and self._kinematics is not None:
            tool = self._kinematics.tool(self.sent + limited)
            if (np.clip(tool, workspace.low, workspace.high) != tool).any():
                return change
        return limited
