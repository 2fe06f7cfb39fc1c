"""One dm_control simulator behind mtrl's Environment contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers, Task, TaskAction, start_seed

from ..dynamics import DynamicsVariation
from ..images import ImageStack
from .rendering import Renderer
from .simulator import action_range, load_simulator, observation_slices

FRAME_SIZE = 480
"""Height and width in pixels of what `render` shows."""


class ControlEnvironment:
    """A DeepMind Control task; its dictionary of observations is written flat, in dm_control's order.

    Domains move targets, lights and walls of the model at every reset, and draw all of it from the
    task's RandomState; seeding that is all a start needs.
    """

    def __init__(self, task: Task, domain: str, control_task: str, camera: str) -> None:
        """`task` carries the options; `domain` and `control_task` are dm_control's names, `camera` is one
        of the model's. Raises UnsupportedError for pixels without off-screen OpenGL.
        """
        self._name = task.name
        self._repeat = task.action_repeat
        self._simulator = load_simulator(domain, control_task)
        self._middle, self._half_range = action_range(self._simulator)
        self._control = np.zeros_like(self._middle)
        self._wants_state = task.observation.state is not None
        specs = self._simulator.observation_spec()
        slices = observation_slices(self._simulator)
        self._slices = [(key, where, len(specs[key].shape) > 1) for key, where in slices]
        self._renderer = Renderer(self._simulator.physics, camera, task.name)
        self._dynamics: DynamicsVariation | None = None
        self._stack: ImageStack | None = None
        if task.observation.pixels is not None:
            depth = int(task.option("frame_stack", 3))
            channels, self._size, _ = task.observation.pixels
            self._stack = ImageStack(1, depth, channels // depth, self._size, self._size)
            self._grey = np.zeros((self._size, self._size), dtype=np.uint8)
            self._renderer.prepare(self._size)

    def vary_dynamics(self, generator: np.random.Generator, spread: float) -> None:
        """Other masses, friction, damping and gains from the next reset on."""
        if self._dynamics is None:
            physics = self._simulator.physics
            self._dynamics = DynamicsVariation(physics.model.ptr, physics.data.ptr)
        self._dynamics.draw(generator, spread)

    def reset(self, start: int, out: Buffers) -> None:
        """Draws the initial state from a random state seeded by the start.

        `out`: `state` float32 [D]; `pixels` uint8 [frame_stack * channels, S, S], the image repeated.
        """
        self._simulator.task._random = np.random.RandomState(np.random.MT19937(start_seed(self._name, start)))
        observation = self._simulator.reset().observation
        if self._wants_state:
            self._write(observation, out["state"])
        if self._stack is not None:
            self._draw(self._stack.newest[0])
            self._stack.begin(0)
            out["pixels"][...] = self._stack.window.reshape(out["pixels"].shape)

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Holds the action for the task's repeat; the reward is the sum. There is no success signal."""
        control = self._control
        np.multiply(self._half_range, action, out=control)
        control += self._middle
        simulator = self._simulator
        result = simulator.step(control)
        total = float(result.reward)
        for _ in range(1, self._repeat):
            if result.last():
                break
            result = simulator.step(control)
            total += float(result.reward)
        if self._wants_state:
            self._write(result.observation, out["state"])
        if self._stack is not None:
            self._stack.advance()
            self._draw(self._stack.newest[0])
            out["pixels"][...] = self._stack.window.reshape(out["pixels"].shape)
        # the step limit ends an episode with discount 1; only a discount of 0 is the problem's own end
        return total, bool(result.last() and result.discount == 0.0), False

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB frame [480, 480, 3]; raises UnsupportedError when no off-screen OpenGL is to be had."""
        return self._renderer.frame(FRAME_SIZE).copy()

    def close(self) -> None:
        """Frees the renderer, if there is one, and the simulator."""
        self._renderer.close()
        self._simulator.close()

    def _draw(self, out: npt.NDArray[np.uint8]) -> None:
        """Writes the present image into `out`, [3, S, S] in colour or [1, S, S] in grey."""
        frame = self._renderer.frame(self._size)
        if len(out) == 3:
            out[...] = frame.transpose(2, 0, 1)
        else:
            # OpenCV takes rows in the order of memory: the view is turned back, and the result turned again
            cv2.cvtColor(frame[::-1], cv2.COLOR_RGB2GRAY, dst=self._grey)
            out[0] = self._grey[::-1]

    def _write(self, observation: Mapping[str, Any], out: npt.NDArray[np.generic]) -> None:
        for key, where, nested in self._slices:
            values = observation[key]
            out[where] = values.reshape(-1) if nested else values
