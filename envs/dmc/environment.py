"""One dm_control simulator behind mtrl's Environment contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from dm_control import suite as control_suite

from mtrl.tasks import start_seed

from ..offscreen import drawing_errors, require_backend


class ControlEnvironment:
    """A DeepMind Control task; its dictionary of observations is written flat, in dm_control's order."""

    def __init__(self, name: str, domain: str, task: str, action_repeat: int) -> None:
        """`name` is mtrl's, part of every start's seed; `domain` and `task` are dm_control's."""
        self._name = name
        self._repeat = action_repeat
        self._simulator = control_suite.load(domain, task, task_kwargs={"random": 0})
        bounds = self._simulator.action_spec()
        self._middle = (bounds.maximum + bounds.minimum) / 2.0
        self._half_range = (bounds.maximum - bounds.minimum) / 2.0
        self._slices: list[tuple[str, slice]] = []
        offset = 0
        for key, spec in self._simulator.observation_spec().items():
            size = int(np.prod(spec.shape))
            self._slices.append((key, slice(offset, offset + size)))
            offset += size

    def reset(self, start: int, out: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Draws the initial state from a random state seeded by the start; `out["state"]`: float32 [D]."""
        # dm_control tasks draw from a RandomState of their own and keep nothing else between episodes
        self._simulator.task._random = np.random.RandomState(np.random.MT19937(start_seed(self._name, start)))
        self._write(self._simulator.reset().observation, out["state"])

    def step(
        self, action: npt.NDArray[np.float32] | int, out: Mapping[str, npt.NDArray[np.generic]]
    ) -> tuple[float, bool, bool]:
        """Holds the action for the task's repeat; the reward is the sum. There is no success signal."""
        control = self._middle + self._half_range * action
        result = self._simulator.step(control)
        total = float(result.reward)
        for _ in range(1, self._repeat):
            if result.last():
                break
            result = self._simulator.step(control)
            total += float(result.reward)
        self._write(result.observation, out["state"])
        # the step limit ends an episode with discount 1; only a discount of 0 is the problem's own end
        return float(total), bool(result.last() and result.discount == 0.0), False

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB frame [480, 480, 3]; raises UnsupportedError when no off-screen OpenGL is to be had."""
        require_backend(self._name)
        with drawing_errors(f"drawing {self._name}"):
            frame: npt.NDArray[np.uint8] = self._simulator.physics.render(480, 480, camera_id=0)
        return frame

    def close(self) -> None:
        """Frees the simulator."""
        self._simulator.close()

    def _write(self, observation: Mapping[str, Any], out: npt.NDArray[np.generic]) -> None:
        for key, where in self._slices:
            out[where] = np.ravel(observation[key])
