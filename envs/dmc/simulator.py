"""Building a dm_control simulator, with what three domains need to run here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from dm_control import suite as control_suite
from dm_control.suite import quadruped

LQR_FORCE = 10.0
"""N; dm_control leaves LQR's motors unlimited. The optimal controller needs 6 N at most."""
LQR_SECONDS = 30.0
"""s; dm_control leaves LQR's episodes unlimited. 1000 control steps, as everywhere else in the suite."""


class QuadrupedPhysics(quadruped.Physics):
    """The quadruped's physics without NumPy's `in1d`, and without OpenGL where nothing is drawn.

    `in1d` is gone since NumPy 2.4, and dm_control 1.0.28 finds the sensors with it. `escape` reads the
    rendering contexts at every reset, so as to upload its terrain; dm_control makes them then, which
    takes 80 MB and 0.6 s and fails on a machine without OpenGL.
    """

    _resets = 0

    @property
    def contexts(self) -> Any:  # noqa: ANN401 - a namedtuple of dm_control, or None
        """The rendering contexts; during a reset only those that exist already."""
        return self._contexts if self._resets else super().contexts

    @contextmanager
    def reset_context(self) -> Iterator[QuadrupedPhysics]:
        """As dm_control's; may be nested."""
        self._resets += 1
        try:
            with super().reset_context():
                yield self
        finally:
            self._resets -= 1

    def _get_sensor_names(self, *sensor_types: int) -> list[str]:
        found: dict[tuple[int, ...], list[str]] = self._sensor_types_to_names
        if sensor_types not in found:
            kinds = enumerate(self.model.sensor_type)
            found[sensor_types] = [
                self.model.id2name(i, "sensor") for i, kind in kinds if kind in sensor_types
            ]
        return found[sensor_types]


def load_simulator(domain: str, task: str) -> Any:  # noqa: ANN401 - dm_control is not typed
    """A `dm_control.rl.control.Environment`; models that are drawn at random (LQR) are always the same."""
    settings: dict[str, float] = {"random": 0}
    if domain == "quadruped":
        # its constructors look this name up in their module
        quadruped.Physics = QuadrupedPhysics
    if domain == "lqr":
        settings["time_limit"] = LQR_SECONDS
    simulator = control_suite.load(domain, task, task_kwargs=settings)
    if domain == "lqr":
        model = simulator.physics.model
        model.actuator_ctrllimited[:] = 1
        model.actuator_ctrlrange[:] = (-LQR_FORCE, LQR_FORCE)
    return simulator


def action_range(simulator: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # noqa: ANN401
    """Middle and half width [A] of the actuators' bounds: control = middle + half width * action."""
    bounds = simulator.action_spec()
    return (bounds.maximum + bounds.minimum) / 2.0, (bounds.maximum - bounds.minimum) / 2.0


def observation_slices(simulator: Any) -> list[tuple[str, slice]]:  # noqa: ANN401
    """Position of each entry of dm_control's dictionary of observations in the flat state."""
    specs = simulator.observation_spec()
    ends = np.cumsum([int(np.prod(spec.shape)) for spec in specs.values()], dtype=int).tolist()
    return [(key, slice(begin, end)) for key, begin, end in zip(specs, [0, *ends], ends, strict=False)]
