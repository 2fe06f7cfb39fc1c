"""A robot of joints as the environment of a task: readings become observations, actions joint positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtrl.errors import GuardError, UnsupportedError
from mtrl.tasks import Buffers, Task, TaskAction

from ..artefact.joints import UNITS
from ..guard.guard import GIVEN_UP
from .joint_guard import JointGuard
from .joints import Float64, RobotIO
from .site import Site, Success
from .terms import action_terms, observation_terms

if TYPE_CHECKING:
    from .kinematics import Kinematics


class JointEnvironment:
    """Carries a task out on a `RobotIO`.

    What is commanded stays within each joint's limits of position, velocity and acceleration and the tool's
    workspace: `JointGuard` has the order. What is measured beyond a joint's limits is reported as `breach`.
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
        action = action_terms(binding.action, names)
        self._guard = JointGuard(site, action, task.rate_hz, kinematics)
        self._success: Success | None = binding.success
        self._site = site
        self._robot = robot
        self._kinematics = kinematics
        self._sees_tool = any(term.kind == "tool" for term in self._observation)
        self._entries = np.zeros(len(self._observation))
        self._before = np.zeros(len(self._observation))
        self._applied = np.full(len(action), np.nan)
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

    @property
    def breach(self) -> int:
        """Bits of `GuardFlag`: what was measured beyond a limit, and what limited the last command."""
        found = self._guard.breach(self._robot.reading, moves=self._moves, watches=self._shadow)
        return int(found | self._guard.flags)

    def write_joints(self, out: Float64) -> None:
        """As `Jointed` says."""
        reading = self._robot.reading
        parts = (self._applied, reading.position, reading.velocity, reading.effort, self._guard.state)
        np.concatenate(parts, out=out)

    def reset(self, start: int, out: Buffers) -> None:
        """Waits for the robot at its start, and raises as `refresh` does."""
        self._robot.begin(start)
        self.unsolved = self.limited = 0
        self.refresh(out)

    def refresh(self, out: Buffers) -> None:
        """Reads the robot where it stands, which is where its flight begins.

        Raises GuardError where a joint is outside the start envelope, the tool outside the workspace, or an
        emergency stop is pressed, but in shadow.
        """
        self._robot.read()
        self._applied[:] = np.nan
        self._guard.begin(self._robot.reading.position)
        if not self._shadow:
            self._require_start()
        self._observe(first=True)
        out["state"][...] = self._entries

    def _require_start(self) -> None:
        reading, limits = self._robot.reading, self._guard.limits
        if reading.stop:
            raise GuardError(
                f"the emergency stop {self._site.topics.stop} is pressed or silent; release it, and see that "
                "it is published"
            )
        outside = (reading.position < limits.start_low) | (reading.position > limits.start_high)
        if outside.any():
            index = int(outside.argmax())
            joint = self._site.joints[index]
            unit = UNITS[joint.unit]
            raise GuardError(
                f"joint {joint.name!r} is at {reading.position[index] / unit:g} {joint.unit}; a flight "
                f"begins within {joint.start_low:g} to {joint.start_high:g}. Move the robot there first"
            )
        if self._guard.outside() and (workspace := self._site.workspace) is not None:
            place = ", ".join(f"{value:.3f}" for value in self._guard.tool)
            raise GuardError(
                f"the tool is at {place} m, outside the workspace {workspace.low} to {workspace.high}. Move "
                "the robot into it first"
            )

        if (apart := self._guard.too_near()) is not None:
            raise GuardError(
                f"parts of the robot are {1000 * apart:.0f} mm from each other; clearance_mm of robot.yaml "
                f"asks for {self._site.clearance_mm:g}. Move the robot apart first"
            )

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Commands the joints and reads them; the reward is 0: nothing measures it."""
        self._robot.command(self._target(action))
        return self._read(out)

    def watch(self, action: TaskAction | None, out: Buffers) -> tuple[float, bool, bool]:
        """As `step`, without the command; where nobody moves them, joints stay."""
        if action is not None:
            self._target(action)
        return self._read(out)

    def _target(self, action: TaskAction) -> Float64:
        self._applied[:] = action
        target = self._guard.target(self._applied)
        flags = self._guard.flags
        self.unsolved += bool(flags & GIVEN_UP)
        self.limited += bool(flags & ~GIVEN_UP)
        return target

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
