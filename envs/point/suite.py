"""The point suite: one task, cheap enough to be listed, built and stepped by anything."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, Score, Task

from . import geometry
from .environment import PointEnvironment
from .expert import PointExpert


class PointSuite(CatalogueSuite[None]):
    """One task, "point/obstacle": demonstrations pass left and right, and their mean hits the obstacle."""

    name = "point"
    has_experts = True
    environment_megabytes = 0.1
    catalogue = Catalogue({"obstacle": None})

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """The task; it has no options."""
        self.described(name, options)
        return Task(
            name=name,
            observation=ObservationSpec(state=4),
            action=ActionSpec(continuous=2),
            simulator_rate_hz=geometry.RATE_HZ,
            action_repeat=1,
            horizon_decisions=geometry.HORIZON,
            score=Score("success"),
            reward_version="point-1",
        )

    def environment(self, task: Task) -> PointEnvironment:
        """A new simulation."""
        return PointEnvironment()

    def expert(self, task: Task) -> PointExpert:
        """The left-or-right expert."""
        return PointExpert()

    def modes(self, task: Task) -> tuple[str, ...]:
        """The two ways round the obstacle."""
        return ("left", "right")

    def mode(self, task: Task, states: npt.NDArray[np.float32]) -> str:
        """The side on which an episode with states [T + 1, 4] passed."""
        return geometry.side(states)

    def plan_view(self, task: Task, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The path, x and y in metres, [T + 1, 2]."""
        return states[:, :2]

    def obstacle(self, task: Task) -> tuple[float, float, float]:
        """Centre and radius of the obstacle, in metres."""
        return (*geometry.OBSTACLE_CENTRE, geometry.OBSTACLE_RADIUS)


SUITE = PointSuite()
