"""dm_control's tasks in EnvPool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dmc.simulator import load_simulator
from .names import control_identifier
from .pool import PoolEnvironment, Rows


class ControlPool(PoolEnvironment):
    """A DeepMind Control task; observations are written flat, in dm_control's order.

    EnvPool's own `frame_skip` is a number of physics steps inside one control step: with it, an action
    repeat would sum no rewards. So a decision is `action_repeat` steps of the pool.
    """

    def __init__(
        self,
        task_name: str,
        domain: str,
        task: str,
        copies: int,
        seed: int,
        *,
        action_repeat: int,
        step_limit: int,
    ) -> None:
        """`task_name` is mtrl's; `domain` and `task` are dm_control's; `step_limit` in control steps."""
        super().__init__(
            task_name,
            control_identifier(domain, task),
            copies,
            seed,
            repeat=action_repeat,
            # an episode's last decision is cut short where the repeat does not divide the limit
            max_episode_steps=step_limit,
        )
        official = load_simulator(domain, task)
        bounds = official.action_spec()
        self._middle = (bounds.maximum + bounds.minimum) / 2.0
        self._half_range = (bounds.maximum - bounds.minimum) / 2.0
        self._slices: list[tuple[str, slice]] = []
        offset = 0
        for key, spec in official.observation_spec().items():
            size = int(np.prod(spec.shape))
            self._slices.append((key, slice(offset, offset + size)))
            offset += size
        official.close()

    def _control(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        control: npt.NDArray[Any] = self._middle + self._half_range * action
        return control

    def _write(
        self,
        observation: Mapping[str, npt.NDArray[np.float64]],
        info: Mapping[str, npt.NDArray[Any]],
        rows: Rows,
        out: Mapping[str, npt.NDArray[np.generic]],
    ) -> None:
        state = out["state"]
        for key, where in self._slices:
            part = observation[key]
            state[rows, where] = part.reshape(len(part), -1)
