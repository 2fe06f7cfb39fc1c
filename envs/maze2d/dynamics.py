"""What moves in a maze, in SI units, and its model for MuJoCo."""

from __future__ import annotations

from itertools import groupby

from .maze import Maze

RADIUS = 0.1
"""Radius of the ball, metres."""
MASS = 1.0
"""Mass of the ball, kg."""
FORCE = 3.0
"""Force in one dimension at action 1, newtons."""
DAMPING = 1.5
"""Drag, newtons per metre a second: full force ends in 2 m/s."""
TIMESTEP = 0.01
"""Seconds of one step of the simulator."""
SUBSTEPS = 5
"""Steps of the simulator per decision: 20 decisions a second."""
JITTER = 0.25
"""Start and goal lie within plus and minus this around the middle of their cells, metres, in x and y."""
GOAL_RADIUS = 0.5
"""Success: the ball's middle lies no farther than this from the goal, half a cell, metres."""


def model_xml(maze: Maze) -> str:
    """The maze as MJCF: neighbouring wall cells of a row are one box; contacts have no friction."""
    walls = []
    for row, line in enumerate(maze.rows):
        for letter, run in groupby(range(len(line)), key=line.__getitem__):
            if letter == "#":
                columns = list(run)
                left, y = maze.centre((row, columns[0]))
                right, _ = maze.centre((row, columns[-1]))
                middle, half = (left + right) / 2, len(columns) / 2
                walls.append(f'<geom type="box" pos="{middle} {y} 0" size="{half} 0.5 0.2"/>')
    drag = f'damping="{DAMPING}"'
    motor = f'gear="{FORCE}" ctrllimited="true" ctrlrange="-1 1"'
    return f"""
<mujoco model="maze2d">
  <option timestep="{TIMESTEP}" gravity="0 0 0"/>
  <default><geom condim="1"/></default>
  <worldbody>
    {"".join(walls)}
    <body name="ball">
      <joint name="x" type="slide" axis="1 0 0" {drag}/>
      <joint name="y" type="slide" axis="0 1 0" {drag}/>
      <geom type="sphere" size="{RADIUS}" mass="{MASS}"/>
    </body>
  </worldbody>
  <actuator><motor joint="x" {motor}/><motor joint="y" {motor}/></actuator>
</mujoco>
"""
