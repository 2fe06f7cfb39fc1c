"""Meta-World's tasks in EnvPool."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers, Task

from ..envpool import Arrays, PoolEnvironment, Rows

_NEVER = 1_000_000_000
"""Steps after which EnvPool would end an episode; here the lane does, at the task's horizon."""

LEVER_ORIENTATIONS = (slice(7, 11), slice(25, 29))
"""Where an observation holds the lever's orientation, now and one step before: x, y, z, w."""
_LEVER_FRAME = np.array([0.0, 0.0, 0.34955314, 0.93691654])
"""Rotation from EnvPool's frame of the lever's mesh to the official one, a quaternion x, y, z, w."""


class MetaworldPool(PoolEnvironment):
    """A Meta-World task with the goal visible and reward version 2, the only one that EnvPool has.

    Object and goal positions are drawn from the task's ranges at every reset. Where and why it
    departs from the official simulator stands in docs/decisions/0008-where-envpool-departs.md.
    """

    def __init__(self, task: Task, copies: int, seed: int) -> None:
        """The task's short name is metaworld's, such as "reach-v3"."""
        super().__init__(
            task.name,
            metaworld_identifier(task.short_name),
            copies,
            seed,
            repeat=1,
            # EnvPool hides the goal by default
            partially_observable=False,
            max_episode_steps=_NEVER,
        )
        self._turns_lever = task.short_name == "lever-pull-v3"

    def _write(self, observation: npt.NDArray[np.float64], info: Arrays, rows: Rows, out: Buffers) -> None:
        if self._turns_lever:
            for orientation in LEVER_ORIENTATIONS:
                observation[:, orientation] = official_lever(observation[:, orientation])
        out["state"][rows] = observation


def official_lever(orientation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Orientations [R, 4] of the lever in the frame, and with the sign, of the official simulator.

    MuJoCo lays a mesh's frame along its axes of inertia, and its releases choose different ones of them.
    """
    x, y, z, w = orientation.T
    a, b, c, d = _LEVER_FRAME
    turned = np.stack(
        [
            w * a + x * d + y * c - z * b,
            w * b - x * c + y * d + z * a,
            w * c + x * b - y * a + z * d,
            w * d - x * a - y * b - z * c,
        ],
        axis=1,
    )
    largest = np.take_along_axis(turned, np.abs(turned).argmax(axis=1)[:, None], axis=1)
    return turned * np.sign(largest)


def metaworld_identifier(short_name: str) -> str:
    """EnvPool's name: "MetaWorld/PickPlace-v3" for "pick-place-v3"."""
    *words, version = short_name.split("-")
    return f"MetaWorld/{''.join(word.capitalize() for word in words)}-{version}"
