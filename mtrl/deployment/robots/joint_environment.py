"""A robot of joints as the environment of a task: readings become observations, actions joint positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtrl.errors import GuardError, UnsupportedError
from mtrl.tasks import Buffers, Task, TaskAction

from ..guard.guard import GuardFlag
from .joints import Float64, RobotIO
from .site import UNITS, Site, Success
from .terms import action_terms, observation_terms

if TYPE_CHECKING:
    from .kinematics import Kinematics

IK_STEPS = 20
"""Iterations of the tool's inverse kinematics in one decision; from the last solution three or four do."""


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


class JointEnvironment:
    """Carries a task out on a `RobotIO`.

    What is commanded stays within each joint's limits of position, velocity and acceleration and the tool's
    workspace. A tool target whose inverse kinematics is not solved is given up: the joints stay, and the
    decision is counted. What is measured beyond a joint's limits is reported as `breach`.
    """

    def __init__(
        self, task: Task, site: Site, robot: RobotIO, kinematics: Kinematics | None, mode: str = "armed"
    ) -> None:
        """`kinematics` is needed where the task's terms name the tool; see `fit.py`. In shadow the robot may
        be anywhere.
        """
        self._shadow = mode == "shadow"
        self._moves = mode == "armed"
        binding = site.binding(task.name)
        names = [joint.name for joint in site.joints]
        self._observation = observation_terms(binding.observation, names, site.topics.perception_size)
        self._action = action_terms(binding.action, names)
        self._success: Success | None = binding.success
        self._site = site
        self._robot = robot
        self._kinematics = kinematics
        self._limits = Limits(site)
        self._names = names
        self._reach = self._limits.velocity / task.rate_hz
        self._growth = self._limits.acceleration / task.rate_hz**2
        self._change = np.zeros(len(names))
        self._beyond = site.smoothness * (self._limits.high - self._limits.low)
        self._sees_tool = any(term.kind == "tool" for term in self._observation)
        self._moves_tool = any(term.kind == "tool" for term in self._action)
        self._sent = np.zeros(len(names))
        self._tool = np.zeros(3)
        self._orientation: Float64 | None = None
        self._entries = np.zeros(len(self._observation))
        self._before = np.zeros(len(self._observation))
        self.unsolved = 0
        """Decisions whose tool target was given up."""
        self.limited = 0
        """Decisions in which a joint's or the workspace's limit changed what is commanded."""

    @property
    def observed_at(self) -> float:
        """When the oldest part of the newest observation was measured; seconds of time.monotonic."""
        return self._robot.reading.observed_at

    @property
    def dropped(self) -> int:
        """Readings that were refused."""
        return self._robot.dropped

    def reset(self, start: int, out: Buffers) -> None:
        """Waits for the robot at its start, and raises as `refresh` does."""
        self._robot.begin(start)
        self.unsolved = self.limited = 0
        self.refresh(out)

    def refresh(self, out: Buffers) -> None:
        """Reads the robot where it stands, which is where its flight begins.

        Raises GuardError where a joint is outside the start envelope, or the tool outside the workspace, but
        in shadow.
        """
        self._robot.read()
        position, limits = self._robot.reading.position, self._limits
        outside = (position < limits.start_low) | (position > limits.start_high)
        if outside.any() and not self._shadow:
            index = int(outside.argmax())
            joint = self._site.joints[index]
            unit = UNITS[joint.unit]
            raise GuardError(
                f"joint {joint.name!r} is at {position[index] / unit:g} {joint.unit}; a flight begins within "
                f"{joint.start_low:g} to {joint.start_high:g}. Move the robot there first"
            )
        self._sent[:] = position
        self._change[:] = 0.0
        if self._kinematics is not None:
            self._tool[:] = self._kinematics.tool(position)
            self._orientation = self._kinematics.orientation(position)
            if not self._shadow:
                self._require_inside()
        self._observe(first=True)
        out["state"][...] = self._entries

    def _require_inside(self) -> None:
        """Outside the workspace even a hold would move the tool, back into it."""
        workspace, slack = self._site.workspace, self._site.solved_mm / 1000
        if not self._moves_tool or workspace is None:
            return
        moved = np.clip(self._tool, workspace.low, workspace.high) - self._tool
        if np.abs(moved).max() > slack:
            place = ", ".join(f"{value:.3f}" for value in self._tool)
            raise GuardError(
                f"the tool is at {place} m, outside the workspace {workspace.low} to {workspace.high}. Move "
                "the robot into it first"
            )

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Commands the joints and reads them; the reward is 0: nothing measures it."""
        self._robot.command(self._target(np.asarray(action, dtype=np.float64)))
        return self._read(out)

    def watch(self, action: TaskAction | None, out: Buffers) -> tuple[float, bool, bool]:
        """As `step`, without the command; where nobody moves them, joints stay."""
        if action is not None:
            self._target(np.asarray(action, dtype=np.float64))
        return self._read(out)

    def _read(self, out: Buffers) -> tuple[float, bool, bool]:
        self._robot.read()
        self._observe()
        out["state"][...] = self._entries
        return 0.0, False, self._succeeded()

    def render(self) -> npt.NDArray[np.uint8]:
        """There is no camera."""
        raise UnsupportedError("a robot has no image of itself; look at it")

    def close(self) -> None:
        """Holds, and lets go of the robot."""
        self._robot.hold()
        self._robot.close()

    def _target(self, action: Float64) -> Float64:
        """Joint positions [J] of an action [A], within every limit."""
        wanted = self._sent.copy()
        tool = self._tool.copy()
        for term, value in zip(self._action, action, strict=True):
            if term.kind == "tool":
                tool[term.index] += term.scale * value
            elif term.kind == "shift":
                wanted[term.index] += term.scale * value
            else:
                wanted[term.index] = term.scale * value + term.offset
        within = True
        if self._moves_tool:
            wanted, within = self._with_tool(wanted, tool)
        limits = self._limits
        inside = np.clip(wanted, limits.low, limits.high)
        change = inside - self._sent
        # all joints are slowed down alike, so that the tool keeps its direction
        slower = min(1.0, float((self._reach / np.maximum(np.abs(change), 1e-12)).min()))
        change = self._accelerated(slower * change)
        sent = np.clip(self._sent + change, limits.low, limits.high)
        arrives = np.allclose(sent, inside, rtol=0.0, atol=1e-12)
        if not arrives or not within or (inside != wanted).any():
            self.limited += 1
        self._change[:] = sent - self._sent
        self._sent[:] = sent
        if self._moves_tool and self._kinematics is not None:
            # where the joints really go: a target that runs ahead of them would wind up
            self._tool[:] = self._tool if arrives else self._kinematics.tool(self._sent)
        return self._sent

    def _accelerated(self, change: Float64) -> Float64:
        """A change of the joints [J] whose own change is within the limits of acceleration, and from which
        every joint still comes to rest before its end; as it was where the tool would leave the workspace.
        """
        growth, limits = self._growth, self._limits
        if not np.isfinite(growth).any():
            return change
        # slowing down by `growth` g a decision, a joint at v comes to rest within (v + g / 2)^2 / 2 g
        room = np.stack([self._sent - limits.low, limits.high - self._sent])
        with np.errstate(invalid="ignore"):
            down, up = np.maximum(np.sqrt(2 * growth * room) - growth / 2, 0.0)
        low = np.maximum(self._change - growth, -np.where(np.isfinite(growth), down, np.inf))
        high = np.minimum(self._change + growth, np.where(np.isfinite(growth), up, np.inf))
        limited = np.clip(change, np.minimum(low, high), np.maximum(low, high))
        workspace = self._site.workspace
        if self._moves_tool and workspace is not None and self._kinematics is not None:
            tool = self._kinematics.tool(self._sent + limited)
            if (np.clip(tool, workspace.low, workspace.high) != tool).any():
                return change
        return limited

    @property
    def breach(self) -> int:
        """Bits of `GuardFlag` for what the newest reading has beyond the limits of its joints."""
        reading, limits, found = self._robot.reading, self._limits, GuardFlag.NONE
        position = reading.position
        if (
            (position < limits.low - self._beyond) | (position > limits.high + self._beyond)
        ).any() and not self._shadow:
            found |= GuardFlag.JOINT_BEYOND_LIMIT
        if (np.abs(reading.effort) > limits.effort).any():
            found |= GuardFlag.EFFORT_BEYOND_LIMIT
        if self._moves and (np.abs(position - self._sent) > limits.tracking).any():
            found |= GuardFlag.NOT_FOLLOWING
        return int(found)

    def _with_tool(self, wanted: Float64, tool: Float64) -> tuple[Float64, bool]:
        """Joints that bring the tool to a place in the workspace, and whether the place was inside."""
        assert self._kinematics is not None and self._site.workspace is not None
        place = np.clip(tool, self._site.workspace.low, self._site.workspace.high)
        solution = self._kinematics.solve(wanted, place, self._orientation, IK_STEPS)
        if not solution.solved(self._site.solved_mm / 1000):
            self.unsolved += 1
            return wanted, True
        self._tool[:] = place
        return solution.position, bool((place == tool).all())

    def _observe(self, *, first: bool = False) -> None:
        self._before, self._entries = self._entries, self._before
        reading = self._robot.reading
        tool = np.zeros(3)
        if self._sees_tool and self._kinematics is not None:
            tool = self._kinematics.tool(reading.position)
        sources = {
            "position": reading.position,
            "velocity": reading.velocity,
            "effort": reading.effort,
            "perception": reading.perception,
            "tool": tool,
            "previous": self._before,
            "constant": np.zeros(1),
        }
        for entry, term in enumerate(self._observation):
            self._entries[entry] = term.scale * sources[term.kind][term.index] + term.offset
        if first:
            self._repeat_first()

    def _repeat_first(self) -> None:
        """Before the first observation there was none: it stands for its own predecessor."""
        for entry, term in enumerate(self._observation):
            if term.kind == "previous":
                self._entries[entry] = term.scale * self._entries[term.index] + term.offset

    def _succeeded(self) -> bool:
        success = self._success
        if success is None:
            return False
        apart = self._entries[list(success.of)]
        if success.to:
            apart = apart - self._entries[list(success.to)]
        return float(np.linalg.norm(apart)) <= success.within
