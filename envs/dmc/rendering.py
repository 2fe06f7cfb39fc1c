"""Off-screen pictures of a dm_control simulation, and the stack of them that an agent sees."""

from __future__ import annotations

from typing import Any

import cv2
import mujoco
import numpy as np
import numpy.typing as npt
from dm_control.mujoco.engine import Camera

from ..offscreen import drawing_errors, require_backend


class Renderer:
    """Square pictures of one simulation from one of its cameras, by dm_control's renderer.

    dm_control sizes its off-screen buffers for the largest picture that the model foresees (the dog's:
    1920 x 1080), which takes up to 150 MB more a simulation. Here they are as large as the largest picture
    asked for; the size does not show in the pictures.
    """

    def __init__(self, physics: Any, camera: str, what: str) -> None:  # noqa: ANN401 - dm_control is not typed
        """`physics` of dm_control, the name of one of its cameras, and `what` is drawn, for errors."""
        self._physics, self._camera, self._what = physics, camera, what
        self._views: dict[int, Camera] = {}
        self._largest = 0

    def prepare(self, size: int) -> None:
        """Makes ready for pictures of that size; raises UnsupportedError without off-screen OpenGL."""
        require_backend(self._what)
        with drawing_errors(f"drawing {self._what}"):
            if size > self._largest:
                self.close()
                buffers = self._physics.model.vis.global_
                buffers.offwidth = buffers.offheight = self._largest = size
            try:
                self._views[size] = Camera(self._physics, size, size, self._camera)
            except mujoco.FatalError as error:
                # an OpenGL library that loads and gives no context: glfw without a display
                raise RuntimeError(str(error)) from error

    def frame(self, size: int) -> npt.NDArray[np.uint8]:
        """RGB [size, size, 3] of the present state: a view, upside down in memory, that the next call
        overwrites. Raises UnsupportedError without off-screen OpenGL.
        """
        if size not in self._views:
            self.prepare(size)
        shown: npt.NDArray[np.uint8] = self._views[size].render()
        return shown

    def close(self) -> None:
        """Frees the drawing contexts and scenes."""
        for view in self._views.values():
            view.scene.free()
        self._views.clear()
        self._largest = 0
        if self._physics._contexts is not None:
            self._physics._free_rendering_contexts()


class ImageStack:
    """The last pictures, in colour or grey, written oldest first."""

    def __init__(self, renderer: Renderer, size: int, depth: int, colour: str) -> None:
        """`depth` pictures of `size` x `size`; `colour` is "rgb" (3 channels each) or "grey" (1).

        Raises UnsupportedError without off-screen OpenGL.
        """
        renderer.prepare(size)
        self._renderer, self._size = renderer, size
        self._channels = 3 if colour == "rgb" else 1
        self._ring = np.zeros((depth * self._channels, size, size), dtype=np.uint8)
        self._grey = np.zeros((size, size), dtype=np.uint8)
        self._oldest = 0

    def begin(self, out: npt.NDArray[np.generic]) -> None:
        """Writes the present picture `depth` times into `out`, uint8 [depth * channels, size, size]."""
        self._oldest = 0
        self._draw()
        for first in range(0, len(self._ring), self._channels):
            self._ring[first : first + self._channels] = self._ring[: self._channels]
        out[...] = self._ring

    def advance(self, out: npt.NDArray[np.generic]) -> None:
        """Replaces the oldest picture with the present one, and writes all into `out`."""
        self._draw()
        self._oldest = (self._oldest + self._channels) % len(self._ring)
        younger = len(self._ring) - self._oldest
        out[:younger] = self._ring[self._oldest :]
        out[younger:] = self._ring[: self._oldest]

    def _draw(self) -> None:
        frame = self._renderer.frame(self._size)
        place = self._ring[self._oldest : self._oldest + self._channels]
        if self._channels == 3:
            place[...] = frame.transpose(2, 0, 1)
        else:
            # the view is turned back to lie in memory as OpenCV wants it, and its result turned again
            cv2.cvtColor(frame[::-1], cv2.COLOR_RGB2GRAY, dst=self._grey)
            place[0] = self._grey[::-1]
