"""The simulated arm: MuJoCo's physics of a site's model behind the interface of any robot of joints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import mujoco
import numpy as np

from mtrl import registry
from mtrl.errors import ConfigError
from mtrl.tasks import Task, undisturbed

from ..joint_guard import Limits
from ..joints import Float64, Intake
from ..kinematics import Kinematics
from ..site import Site
from .faults import FaultyChannel, Measured

SETTLING_S = 1.0
"""Time for which the arm is held at its start before a flight."""


class SimulatedArm:
    """A `RobotIO`: a command moves the arm for one decision, and what it measures comes back at once, unless
    a fault of the site's file interferes.

    The start pose is the middle of every joint's start envelope. The perception of a start is the suite's own
    first observation of it, as a camera might know the scene before the flight; it does not change.
    """

    def __init__(
        self,
        site: Site,
        task: Task,
        kinematics: Kinematics,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises ConfigError for a joint of the site that the model does not have, or does not drive."""
        self._task = task
        self._clock = clock
        self._model = model = kinematics.model
        self._data = mujoco.MjData(model)
        period = 1.0 / task.rate_hz
        self._steps = math.ceil(period / model.opt.timestep - 1e-9)
        model.opt.timestep = period / self._steps
        known = {model.joint(index).name: index for index in range(model.njnt)}
        driven = {int(model.actuator_trnid[index, 0]): index for index in range(model.nu)}
        names = [joint.name for joint in site.joints]
        missing = [name for name in names if known.get(name) not in driven]
        if missing:
            raise ConfigError(f"the model {site.model} has no actuated joint {', '.join(missing)}")
        joints = [known[name] for name in names]
        self._address, self._columns = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._actuators = [driven[joint] for joint in joints]
        limits = Limits(site)
        self._start = (limits.start_low + limits.start_high) / 2
        self._intake = Intake(site.joints, site.topics.perception_size, site.smoothness)
        self._channel = FaultyChannel(site.faults, period, sleep)
        self._decision = 0
        self._last: Float64 | None = None
        self.reading = self._intake.reading

    @property
    def dropped(self) -> int:
        """Readings that were refused."""
        return self._intake.dropped

    def begin(self, start: int) -> None:
        """At rest in the start pose; the scene is that of `start`."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._address] = self._data.ctrl[self._actuators] = self._start
        for _ in range(math.ceil(SETTLING_S / self._model.opt.timestep)):
            mujoco.mj_step(self._model, self._data)
        self._decision = 0
        self.reading.stop = False
        self._intake.forget()
        if len(self.reading.perception):
            self._scene(start)

    def read(self) -> None:
        """Measures the arm anew before the first command; later, readings come with commands."""
        if self._decision == 0:
            self._offer(self._measured())

    def command(self, target: Float64) -> None:
        """Moves towards `target` [J] for the time of one decision."""
        self._last = np.array(target)
        self._data.ctrl[self._actuators] = target
        for _ in range(self._steps):
            mujoco.mj_step(self._model, self._data)
        self._decision += 1
        self.reading.stop |= self._channel.stopped(self._decision)
        for measured in self._channel.carry(self._decision, self._measured()):
            self._offer(measured)

    def hold(self) -> None:
        """Repeats the last command."""
        if self._last is not None:
            self.command(self._last)

    def close(self) -> None:
        """Nothing is to be freed."""

    def _measured(self) -> Measured:
        data = self._data
        return Measured(
            self._clock(),
            data.qpos[self._address].copy(),
            data.qvel[self._columns].copy(),
            data.qfrc_actuator[self._columns].copy(),
        )

    def _offer(self, measured: Measured) -> None:
        taken = self._intake.offer(
            measured.at, slice(None), measured.position, measured.velocity, measured.effort
        )
        if taken and len(self.reading.perception):
            self.reading.heard[-1] = measured.at

    def _scene(self, start: int) -> None:
        suite = registry.environment(undisturbed(self._task))
        out = {"state": np.zeros(self._task.observation.state or 0, dtype=np.float32)}
        suite.reset(start, out)
        suite.close()
        perceived = np.zeros_like(self.reading.perception)
        count = min(len(perceived), len(out["state"]))
        perceived[:count] = out["state"][:count]
        self._intake.offer_perception(self._clock(), perceived)
