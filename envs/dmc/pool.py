"""dm_control's tasks in EnvPool."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from mtrl.tasks import Buffers, Task

from ..envpool import Arrays, PoolEnvironment, Rows
from .simulator import action_range, load_simulator, observation_slices


class ControlPool(PoolEnvironment):
    """A DeepMind Control task; observations are written flat, in dm_control's order.

    EnvPool's own `frame_skip` is a number of physics steps inside one control step: with it, an action
    repeat would sum no rewards. So a decision is `action_repeat` steps of the pool.
    """

    def __init__(
        self, task: Task, domain: str, control_task: str, copies: int, seed: int, *, step_limit: int
    ) -> None:
        """`domain` and `control_task` are dm_control's names; `step_limit` in control steps."""
        super().__init__(
            task.name,
            control_identifier(domain, control_task),
            copies,
            seed,
            repeat=task.action_repeat,
            # an episode's last decision is cut short where the repeat does not divide the limit
            max_episode_steps=step_limit,
        )
        official = load_simulator(domain, control_task)
        self._middle, self._half_range = action_range(official)
        self._slices = observation_slices(official)
        official.close()

    def _control(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        control: npt.NDArray[Any] = self._middle + self._half_range * action
        return control

    def _write(self, observation: Arrays, info: Arrays, rows: Rows, out: Buffers) -> None:
        state = out["state"]
        for key, where in self._slices:
            part = observation[key]
            state[rows, where] = part.reshape(len(part), -1)


def control_identifier(domain: str, task: str) -> str:
    """EnvPool's name: "BallInCupCatch-v1" for "ball_in_cup" and "catch"."""
    words = [*domain.split("_"), *task.split("_")]
    return "".join(word[:1].upper() + word[1:] for word in words) + "-v1"
