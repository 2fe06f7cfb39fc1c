"""The maze2d suite: names, protocols and constructors; imports no simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, OptionRule, Score, Task

from ..offscreen import drawing_errors
from . import dynamics
from .expert import MazeExpert
from .maze import MAZES, Maze

if TYPE_CHECKING:
    from .environment import MazeEnvironment


OPTIONS = {
    # 1 at the goal and 0 elsewhere, or exp(-distance)
    "reward": OptionRule("sparse", choices=("sparse", "dense"))
}


class MazeSuite(CatalogueSuite[Maze]):
    """A ball in a maze, driven by forces, as in D4RL's Maze2D (Fu et al. 2020), with maps of our own.

    Every start draws its own start and goal; the goal is observed. The set `maze2d` holds all four mazes.
    """

    name = "maze2d"
    has_experts = True
    environment_megabytes = 0.7
    catalogue = Catalogue(MAZES, {"maze2d": tuple(MAZES)})
    options = OPTIONS

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One maze; option: `reward` ("sparse" or "dense")."""
        maze, resolved = self.described(name, options)
        return Task(
            name=name,
            observation=ObservationSpec(state=6),
            action=ActionSpec(continuous=2),
            simulator_rate_hz=1.0 / (dynamics.TIMESTEP * dynamics.SUBSTEPS),
            action_repeat=1,
            horizon_decisions=maze.horizon,
            score=Score("success"),
            reward_version="maze2d-1",
            options=tuple(resolved.items()),
        )

    def environment(self, task: Task) -> MazeEnvironment:
        """A new simulation."""
        with drawing_errors(self.name):
            from .environment import MazeEnvironment
        return MazeEnvironment(task.name, self.entry(task.name), task.option("reward", "sparse") == "dense")

    def expert(self, task: Task) -> MazeExpert:
        """Shortest way and a controller; it never fails a start."""
        return MazeExpert(self.entry(task.name))


SUITE = MazeSuite()
