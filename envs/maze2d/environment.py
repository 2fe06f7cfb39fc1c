"""The simulation: a ball pushed through a maze by forces, a place to reach, nothing that ends an episode."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers, TaskAction, start_generator

from ..images import draw_discs
from . import dynamics
from .maze import Maze

SCALE = 32
"""Pixels per metre."""
FREE, WALL, REACHED, GOAL, BALL = (245, 245, 245), (90, 90, 90), (200, 230, 205), (60, 170, 90), (200, 60, 50)
"""RGB; `REACHED` is the area around the goal in which it counts as reached."""


class MazeEnvironment:
    """Observation (x, y, velocity x, velocity y, goal x, goal y) in metres and metres a second.

    Action: a force in [-1, 1]^2 of `dynamics.FORCE`, held for a 20th of a second. Success: within half a
    cell of the goal; the episode goes on. Reward, "sparse": 1 wherever it is success, else 0; "dense":
    exp(-distance to the goal in metres).
    """

    def __init__(self, name: str, maze: Maze, dense: bool) -> None:
        """`name` is the task's, part of every start's seed."""
        self._name, self._maze, self._dense = name, maze, dense
        self._model = mujoco.MjModel.from_xml_string(dynamics.model_xml(maze))
        self._data = mujoco.MjData(self._model)
        self._goal = (0.0, 0.0)

    def reset(self, start: int, out: Buffers) -> None:
        """Draws a free cell, a goal cell at least two cells away, and a place in each; the ball has no
        velocity.

        `out["state"]`: float32 [6].
        """
        generator = start_generator(self._name, start)
        cells = self._maze.free
        cell = cells[int(generator.integers(len(cells)))]
        goals = self._maze.goals(cell)
        goal = goals[int(generator.integers(len(goals)))]
        jitter = generator.uniform(-dynamics.JITTER, dynamics.JITTER, (2, 2))
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = np.array(self._maze.centre(cell)) + jitter[0]
        goal_x, goal_y = self._maze.centre(goal)
        self._goal = (goal_x + float(jitter[1, 0]), goal_y + float(jitter[1, 1]))
        self._write(out["state"])

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Pushes for a 20th of a second. A maze never terminates an episode."""
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, dynamics.SUBSTEPS)
        self._write(out["state"])
        x, y = self._position()
        distance = math.hypot(self._goal[0] - x, self._goal[1] - y)
        success = distance <= dynamics.GOAL_RADIUS
        return math.exp(-distance) if self._dense else float(success), False, success

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB image from above, 32 pixels a metre, [H, W, 3]."""
        walls = np.array([[letter == "#" for letter in row] for row in self._maze.rows])
        wall = walls.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        height, width = self._maze.shape
        x = (np.arange(width * SCALE) + 0.5) / SCALE - width / 2
        y = height / 2 - (np.arange(height * SCALE) + 0.5) / SCALE
        frame = np.full((*wall.shape, 3), FREE, dtype=np.uint8)
        draw_discs(frame, x, y, [(self._goal, dynamics.GOAL_RADIUS, REACHED)])
        frame[wall] = WALL
        discs = [(self._goal, dynamics.RADIUS, GOAL), (self._position(), dynamics.RADIUS, BALL)]
        draw_discs(frame, x, y, discs)
        return frame

    def close(self) -> None:
        """Nothing to free."""

    def _position(self) -> tuple[float, float]:
        return float(self._data.qpos[0]), float(self._data.qpos[1])

    def _write(self, out: npt.NDArray[np.generic]) -> None:
        out[:2] = self._data.qpos
        out[2:4] = self._data.qvel
        out[4:] = self._goal
