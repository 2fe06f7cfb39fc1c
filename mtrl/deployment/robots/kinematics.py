"""Where an arm's tool is, and the joints that bring it somewhere, on MuJoCo's kinematics of an MJCF model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.reading import reading

from .clearance import distant_pairs, least_distance

Float64 = npt.NDArray[np.float64]

DAMPING = 0.02
"""Largest damping of the least squares; near the target it is the remaining error in metres."""
LEAST_DAMPING = 1e-4
"""Damping at the target: keeps a step finite where the arm is singular."""
LARGEST_STEP = 0.3
"""Largest change of a joint in one iteration, in radians or metres."""
ROTATION_M = 0.3
"""Metres that a radian of the tool's orientation counts as."""
NEAR_M = 1e-6
"""Error at which iterations end."""


@dataclass(frozen=True)
class Solution:
    """The outcome of inverse kinematics."""

    position: Float64
    """Joint positions [J], always within the limits."""
    residual_m: float
    """Distance of the tool from its target there, in metres."""
    turned_rad: float
    """Angle of the tool from its orientation there; 0 where none was asked for."""
    iterations: int
    """Steps that were made."""

    def solved(self, within_m: float) -> bool:
        """Whether the tool is within `within_m` of its target, and as near in orientation."""
        return max(self.residual_m, ROTATION_M * self.turned_rad) <= within_m


class Kinematics:
    """Forward and inverse kinematics of the tool for the joints of a robot that the model has.

    Joints that the model lacks stay as they are, and so do joints that do not move the tool, a gripper's.
    """

    def __init__(
        self, path: Path, tool: str, joints: Sequence[str], low: Float64, high: Float64, text: str = ""
    ) -> None:
        """Reads the MJCF file with its meshes; `low` and `high` [J] bound what `solve` returns. `text`: the
        file's content, where it is read already; then `path` is only its name.

        Raises IntegrityError for a file that MuJoCo refuses, ConfigError for a tool that it does not have.
        """
        with reading(path, "an MJCF model that MuJoCo takes"):
            load = mujoco.MjModel
            self.model = load.from_xml_string(text) if text else load.from_xml_path(str(path))
        self._tool = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, tool)
        if self._tool < 0:
            sites = [self.model.site(index).name for index in range(self.model.nsite)]
            raise ConfigError(
                f"{path} has no site {tool!r} for the tool; it has {', '.join(sites) or 'none'}"
            )
        self._data = mujoco.MjData(self.model)
        known = {self.model.joint(index).name: index for index in range(self.model.njnt)}
        found = [known.get(name, -1) for name in joints]
        self._rows = np.flatnonzero(np.array(found) >= 0)
        """Rows of `joints` that the model has."""
        inside = [index for index in found if index >= 0]
        self._address = self.model.jnt_qposadr[inside]
        self._columns = self.model.jnt_dofadr[inside]
        self._low, self._high = low[self._rows], high[self._rows]
        self._linear = np.zeros((3, self.model.nv))
        self._angular = np.zeros((3, self.model.nv))
        self._home = self.model.qpos0.copy()
        self.pairs = distant_pairs(self.model)
        """Parts of the model whose distance `clearance` is the least of."""

    def tool(self, position: Float64) -> Float64:
        """The tool's place [3] in the model's frame at joint positions [J]."""
        self._place(position[self._rows])
        return np.array(self._data.site_xpos[self._tool])

    def orientation(self, position: Float64) -> Float64:
        """The tool's rotation [3, 3] there."""
        self._place(position[self._rows])
        return np.array(self._data.site_xmat[self._tool]).reshape(3, 3)

    def clearance(self, position: Float64) -> float:
        """Least distance in metres between parts of the robot that are no neighbours, at positions [J]."""
        self._place(position[self._rows])
        return least_distance(self.model, self._data, self.pairs)

    def solve(
        self, position: Float64, target: Float64, orientation: Float64 | None = None, iterations: int = 20
    ) -> Solution:
        """Joint positions [J] that bring the tool to `target` [3], beginning at `position` [J].

        Damped least squares (Wampler 1986; Nakamura and Hanafusa 1986) with a bounded step, damping that
        shrinks with the error (Sugihara 2011), and joints at a limit left out of a step that would push them
        beyond. `orientation` [3, 3] is kept where given. The best position found is returned, solved or not.
        """
        solution = np.array(position, dtype=np.float64)
        joints = np.clip(position[self._rows], self._low, self._high)
        best, least, done = joints, np.inf, 0
        error = self._error(joints, target, orientation)
        for done in range(iterations + 1):
            size = float(np.linalg.norm(error))
            if size < least:
                best, least = joints, size
            if size < NEAR_M or done == iterations:
                break
            joints = np.clip(joints + self._step(joints, error), self._low, self._high)
            error = self._error(joints, target, orientation)
        error = self._error(best, target, orientation)
        solution[self._rows] = best
        turned = float(np.linalg.norm(error[3:])) / ROTATION_M
        return Solution(solution, float(np.linalg.norm(error[:3])), turned, done)

    def _place(self, joints: Float64) -> None:
        self._data.qpos[:] = self._home
        self._data.qpos[self._address] = joints
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)

    def _error(self, joints: Float64, target: Float64, orientation: Float64 | None) -> Float64:
        """What is missing in metres, [3], or [6] with the orientation; leaves the model at `joints`."""
        self._place(joints)
        missing = target - self._data.site_xpos[self._tool]
        if orientation is None:
            return np.asarray(missing)
        turn, axis = np.zeros(4), np.zeros(3)
        relative = orientation @ self._data.site_xmat[self._tool].reshape(3, 3).T
        mujoco.mju_mat2Quat(turn, relative.ravel())
        mujoco.mju_quat2Vel(axis, turn, 1.0)
        return np.concatenate((missing, ROTATION_M * axis))

    def _step(self, joints: Float64, error: Float64) -> Float64:
        """The bounded step from `joints`, at which the model is."""
        mujoco.mj_jacSite(self.model, self._data, self._linear, self._angular, self._tool)
        jacobian = np.vstack((self._linear, ROTATION_M * self._angular))[: len(error), self._columns]
        damping = min(DAMPING, float(np.linalg.norm(error))) ** 2 + LEAST_DAMPING**2
        free, blocked = np.zeros((2, len(joints)), dtype=bool)
        step = error
        while (free != ~blocked).any():
            free = ~blocked
            moving = jacobian * free
            step = moving.T @ np.linalg.solve(moving @ moving.T + damping * np.eye(len(error)), error)
            blocked |= ((joints <= self._low) & (step < 0)) | ((joints >= self._high) & (step > 0))
        largest = float(np.abs(step).max(initial=0.0))
        return np.asarray(step * min(1.0, LARGEST_STEP / largest) if largest > 0 else step)
