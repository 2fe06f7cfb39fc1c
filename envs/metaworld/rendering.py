"""Off-screen pictures of a MuJoCo simulation."""

from __future__ import annotations

import mujoco
import numpy as np
import numpy.typing as npt

from ..offscreen import drawing_errors, require_backend

SIZE = 480
"""Height and width of a frame in pixels; metaworld sizes the off-screen buffer to it."""


class Camera:
    """A fixed camera of the model, drawn off-screen."""

    def __init__(self, model: mujoco.MjModel, name: str) -> None:
        """`name` of a camera in the model; raises UnsupportedError without off-screen OpenGL."""
        require_backend("a MuJoCo simulation")
        with drawing_errors("drawing a MuJoCo simulation"):
            self._renderer = mujoco.Renderer(model, SIZE, SIZE)
        self._name = name

    def frame(self, data: mujoco.MjData) -> npt.NDArray[np.uint8]:
        """RGB [480, 480, 3] of the present state."""
        self._renderer.update_scene(data, camera=self._name)
        # metaworld's corner cameras are mounted upside down
        return np.ascontiguousarray(self._renderer.render()[::-1, ::-1])

    def close(self) -> None:
        """Frees the drawing context."""
        self._renderer.close()
