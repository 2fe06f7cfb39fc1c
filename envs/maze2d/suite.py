"""The maze2d suite: names, protocols and constructors; imports no simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.errors import UnknownNameError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Option, Score, Task
from mtrl.tasks.catalogue import OptionRule, resolve_options

from ..offscreen import drawing_errors
from . import dynamics
from .expert import MazeExpert
from .maze import MAZES, Maze

if TYPE_CHECKING:
    from .environment import MazeEnvironment

OPTIONS = {
    # 1 at the goal and 0 elsewhere, or exp(-distance)
    "reward": OptionRule("sparse", choices=("sparse", "dense")),
}


class MazeSuite:
    """A ball in a maze, driven by forces, as in D4RL's Maze2D (Fu et al. 2020), with maps of our own.

    Start and goal are drawn anew for every start; the goal is observed.
    """

    name = "maze2d"
    supports_starts = True
    has_experts = True
    environment_megabytes = 0.7

    def names(self) -> tuple[str, ...]:
        """Four mazes from small to large: "maze2d/open", "umaze", "medium" and "large"."""
        return tuple(f"{self.name}/{short}" for short in MAZES)

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """`maze2d`: all four."""
        return {"maze2d": self.names()}

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One maze; option: `reward` ("sparse" or "dense")."""
        maze = self._maze(name)
        resolved = resolve_options(self.name, OPTIONS, options)
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
        return MazeEnvironment(task.name, self._maze(task.name), task.option("reward", "sparse") == "dense")

    def expert(self, task: Task) -> MazeExpert:
        """Shortest way and a controller; it never fails a start."""
        return MazeExpert(self._maze(task.name))

    def _maze(self, name: str) -> Maze:
        short = name.removeprefix(f"{self.name}/")
        if short not in MAZES or short == name:
            raise UnknownNameError("task", name, self.names())
        return MAZES[short]


SUITE = MazeSuite()
