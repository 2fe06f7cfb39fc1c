"""Other masses, friction, damping and gains of a MuJoCo model, drawn around its own."""

from __future__ import annotations

import math

import mujoco
import numpy as np


class DynamicsVariation:
    """Varies a model in place, each time from the values that it was built with.

    One factor a body (mass and inertia), one for the friction of all contacts, one a degree of freedom
    (damping), one an actuator (gain, with the bias that belongs to it). Muscles keep their curves.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Of a simulation; `data` is scratch space for MuJoCo, so call `draw` before a reset."""
        self._model, self._data = model, data
        self._mass, self._inertia = model.body_mass.copy(), model.body_inertia.copy()
        self._friction, self._damping = model.geom_friction.copy(), model.dof_damping.copy()
        self._gain, self._bias = model.actuator_gainprm.copy(), model.actuator_biasprm.copy()
        self._geared = np.flatnonzero(
            (model.actuator_gaintype != mujoco.mjtGain.mjGAIN_MUSCLE)
            & (model.actuator_gaintype != mujoco.mjtGain.mjGAIN_USER)
        )

    def draw(self, generator: np.random.Generator, spread: float) -> None:
        """Factors log-uniform in [1 / (1 + spread), 1 + spread]; a spread of 0 restores the model."""
        model, width = self._model, math.log1p(spread)

        def factors(count: int) -> np.ndarray:
            return np.exp(generator.uniform(-width, width, count))

        of_bodies = factors(model.nbody)
        model.body_mass[:] = self._mass * of_bodies
        model.body_inertia[:] = self._inertia * of_bodies[:, None]
        model.geom_friction[:] = self._friction * factors(1)
        model.dof_damping[:] = self._damping * factors(model.nv)
        of_actuators = factors(model.nu)[self._geared, None]
        model.actuator_gainprm[self._geared] = self._gain[self._geared] * of_actuators
        model.actuator_biasprm[self._geared] = self._bias[self._geared] * of_actuators
        # inertia at the joints and what else MuJoCo derives from masses
        mujoco.mj_setConst(model, self._data)
