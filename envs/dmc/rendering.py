"""Off-screen images of a dm_control simulation."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from dm_control.mujoco.engine import Camera

from ..offscreen import drawing_errors, require_backend


class Renderer:
    """Square images of one simulation from one of its cameras, by dm_control's renderer.

    dm_control sizes its off-screen buffers for the largest image that the model foresees (the dog's:
    1920 x 1080), which takes up to 150 MB more a simulation. Here they are as large as the largest image
    that was drawn; no pixel depends on that size.
    """

    def __init__(self, physics: Any, camera: str, what: str) -> None:  # noqa: ANN401 - dm_control is not typed
        """`physics` of dm_control, the name of one of its cameras, and `what` is drawn, for errors."""
        self._physics, self._camera, self._what = physics, camera, what
        self._views: dict[int, Camera] = {}
        self._largest = 0

    def prepare(self, size: int) -> None:
        """Prepares images of that size; raises UnsupportedError without off-screen OpenGL."""
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
        frame: npt.NDArray[np.uint8] = self._views[size].render()
        return frame

    def close(self) -> None:
        """Frees the drawing contexts and scenes."""
        for view in self._views.values():
            view.scene.free()
        self._views.clear()
        self._largest = 0
        if self._physics._contexts is not None:
            self._physics._free_rendering_contexts()
