"""The official simulators, made faster with the same results.

Compiling a task's model from XML takes most of a second and gives the same model every time: it is
compiled once per process and copied. The official contact test iterates over all contacts in Python,
twice a step: here it reads the contact arrays. SciPy's checks of each body's rotation matrix and the
splitting and stacking of the observation take a third of a step: here both are done in scalar code. The
tests compare all of it with the official code, bit for bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from .orientation import FasterRotation

OBSERVED_NOW = 18
"""Entries of an observation that describe the present."""

_DOWNWARDS = np.array([1, 0, 1, 0])
"""Orientation of the body that drags the hand along, a quaternion w, x, y, z."""


def official_simulator(short_name: str, reward_version: str) -> Any:  # noqa: ANN401 - fifty classes
    """A simulator of metaworld's own class of that name, such as "reach-v3"."""
    return _faster_class(short_name)(reward_function_version=reward_version)


@cache
def _faster_class(short_name: str) -> Any:  # noqa: ANN401
    official = ALL_V3_ENVIRONMENTS[short_name]

    class FasterSimulator(official):  # type: ignore[misc, valid-type]  # the base is chosen by name
        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model = copy.copy(_compiled(self.fullpath))
            model.vis.global_.offwidth = self.width
            model.vis.global_.offheight = self.height
            return model, mujoco.MjData(model)

        def touching_object(self, object_geom_id: int) -> bool:
            contact, force = self.data.contact, self.data.efc_force
            pairs, addresses = contact.geom, contact.efc_address
            near = (pairs == object_geom_id).any(axis=1)
            for pad in ("leftpad_geom", "rightpad_geom"):
                touching = near & (pairs == self.data.geom(pad).id).any(axis=1)
                if not np.sum(force[addresses[touching]]) > 0:
                    return False
            return True

        _get_quat_objects = _with_faster_rotations(official._get_quat_objects)

        def set_xyz_action(self, action: npt.NDArray[np.float32]) -> None:
            moved = np.minimum(np.maximum(action, -1), 1) * self.action_scale
            place = self.data.mocap_pos + moved[None]
            np.maximum(place[0], self.mocap_low, out=place[0])
            np.minimum(place[0], self.mocap_high, out=place[0])
            self.data.mocap_pos = place
            self.data.mocap_quat = _DOWNWARDS

        def _get_curr_obs_combined_no_goal(self) -> npt.NDArray[np.float64]:
            data = self.data
            apart = data.body("rightclaw").xpos - data.body("leftclaw").xpos
            observed = np.zeros(OBSERVED_NOW)
            observed[:3] = self.get_endeff_pos()
            observed[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
            positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
            for body in range(len(positions) // 3):
                begin = 4 + 7 * body
                observed[begin : begin + 3] = positions[3 * body : 3 * body + 3]
                observed[begin + 3 : begin + 7] = quaternions[4 * body : 4 * body + 4]
            return observed

    FasterSimulator.__name__ = FasterSimulator.__qualname__ = official.__name__
    return FasterSimulator


def _with_faster_rotations(method: Any) -> Callable[..., Any]:  # noqa: ANN401 - the official function
    """The official method, which finds `FasterRotation` where its module has SciPy's `Rotation`."""
    names = {**method.__globals__, "Rotation": FasterRotation}
    return FunctionType(method.__code__, names, method.__name__, method.__defaults__, method.__closure__)


@cache
def _compiled(path: str) -> mujoco.MjModel:
    """The model of an XML file; callers copy it, since simulators move its bodies."""
    return mujoco.MjModel.from_xml_path(path)
