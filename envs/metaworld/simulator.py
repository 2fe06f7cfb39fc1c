"""The official simulators, with two costs taken out that change no number.

Compiling a task's model from XML takes most of a second and gives the same model every time: it is
compiled once per process and copied. Asking which geoms touch walks all contacts in Python, twice a
step: it is asked of the contact arrays instead. Both are compared with the official code in the tests.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS


def official_simulator(short_name: str, reward_version: str) -> Any:  # noqa: ANN401 - fifty classes
    """A simulator of metaworld's own class of that name, such as "reach-v3"."""
    return _quick_class(short_name)(reward_function_version=reward_version)


@cache
def _quick_class(short_name: str) -> Any:  # noqa: ANN401
    official = ALL_V3_ENVIRONMENTS[short_name]

    class Quick(official):  # type: ignore[misc, valid-type]  # the base is chosen by name
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

    Quick.__name__ = Quick.__qualname__ = official.__name__
    return Quick


@cache
def _compiled(path: str) -> mujoco.MjModel:
    """The model of an XML file; callers copy it, since simulators move its bodies."""
    return mujoco.MjModel.from_xml_path(path)
