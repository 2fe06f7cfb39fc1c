"""The suite `example`: a cart on a rail is driven to a mark."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtrl.errors import UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Buffers, Catalogue, CatalogueSuite, Option, Score, Task, TaskAction, start_generator

TASK_NAME = "example/slide"
RATE_HZ = 20.0
SPEED = 1.0
"""Metres per second at the action 1."""
REACHED = 0.05
"""Distance to the mark that counts as success, in metres."""


class Cart:
    """Observation (position, mark - position) in metres; action a velocity in [-1, 1]."""

    def __init__(self) -> None:
        self.position = self.mark = 0.0

    def reset(self, start: int, out: Buffers) -> None:
        """Position and mark are functions of the start alone."""
        generator = start_generator(TASK_NAME, start)
        self.position, self.mark = (float(value) for value in generator.uniform(-0.5, 0.5, 2))
        out["state"][...] = (self.position, self.mark - self.position)

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Drives for a 20th of a second; the reward is minus the distance that is left."""
        assert isinstance(action, np.ndarray)
        self.position += float(np.clip(action[0], -1.0, 1.0)) * SPEED / RATE_HZ
        distance = abs(self.mark - self.position)
        out["state"][...] = (self.position, self.mark - self.position)
        return -distance, False, distance <= REACHED

    def render(self) -> npt.NDArray[np.uint8]:
        """There is no image."""
        raise UnsupportedError(f"{TASK_NAME} draws no image")

    def close(self) -> None:
        """Nothing to free."""


class CartExpert:
    """Drives towards the mark, slower in its last decision."""

    def reset(self, generator: np.random.Generator) -> None:
        """Every episode is driven alike."""

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        """The velocity [1]."""
        left = float(observation["state"][1])
        return np.array([np.clip(4.0 * left, -1.0, 1.0)], dtype=np.float32)


class ExampleSuite(CatalogueSuite[None]):
    """One task."""

    name = "example"
    catalogue = Catalogue({"slide": None})
    has_experts = True
    environment_megabytes = 0.1

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """The task; it has no options."""
        self.described(name, options)
        return Task(
            name=name,
            observation=ObservationSpec(state=2),
            action=ActionSpec(continuous=1),
            simulator_rate_hz=RATE_HZ,
            action_repeat=1,
            horizon_decisions=40,
            score=Score("success"),
            reward_version="1",
        )

    def environment(self, task: Task) -> Cart:
        """A new cart."""
        return Cart()

    def expert(self, task: Task) -> CartExpert:
        """The driver."""
        return CartExpert()


SUITE = ExampleSuite()
