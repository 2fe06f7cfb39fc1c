"""Joints of a robot: what is read, what is commanded, and which readings are believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..artefact.joints import UNITS, Joint

Float64 = npt.NDArray[np.float64]

NEVER = -np.inf
"""Time of a joint that was not heard of yet."""
LONGEST_GAP_S = 1.0
"""Longest time between two measurements that a sender's clock is believed."""
BEYOND = 0.05
"""Share of a joint's range by which a reading may lie beyond its limits: controllers overshoot."""


class Reading:
    """The newest state of J joints and P numbers of perception, in radians, metres and seconds."""

    def __init__(self, joints: int, perception: int) -> None:
        """Zeros, never heard of."""
        self.values = np.zeros(3 * joints + perception)
        """All of it, in this order: position, velocity, effort, perception."""
        self.position, self.velocity, self.effort, self.perception = np.split(
            self.values, [joints, 2 * joints, 3 * joints]
        )
        self.heard = np.full(joints + bool(perception), NEVER)
        """When each joint, and the perception, was measured last; seconds of time.monotonic."""
        self.stop = False
        """Whether an emergency stop is asked for."""

    @property
    def observed_at(self) -> float:
        """Time of the oldest part."""
        return float(self.heard.min())


class RobotIO(Protocol):
    """A robot as joints. Positions in radians or metres, in the order of `robot.yaml`.

    Implementations: the simulated arm, and the bridge to ROS 2.
    """

    @property
    def reading(self) -> Reading:
        """Filled by `begin` and `read`."""

    @property
    def dropped(self) -> int:
        """Messages, or readings, that were refused so far."""

    def begin(self, start: int) -> None:
        """Brings the robot to a start, or waits until it is heard of, and reads it."""

    def read(self) -> None:
        """Brings `reading` up to date; raises when the robot's other side has ended."""

    def command(self, target: Float64) -> None:
        """Sends positions [J]."""

    def hold(self) -> None:
        """Sends the last positions once more; nothing before the first command."""

    def close(self) -> None:
        """Lets go of the robot."""


class Intake:
    """Decides which readings are believed, and keeps the newest.

    A message is refused as a whole, and counted, where a number is not finite, a position lies well outside
    its limits or jumped further than the joint can move, or the message is older than what is there. What is
    refused does not make the reading younger, so whatever keeps coming wrong ends as a stale observation.
    """

    def __init__(self, joints: Sequence[Joint], perception: int, smoothness: float) -> None:
        """`smoothness`: of `Site`."""
        scale = np.array([UNITS[joint.unit] for joint in joints])
        low, high = (np.array([getattr(joint, end) for joint in joints]) * scale for end in ("low", "high"))
        self.reading = Reading(len(joints), perception)
        self.dropped = 0
        """Messages that were refused."""
        self.believed = 0
        """Messages of joints that were not."""
        self._low, self._high = low - BEYOND * (high - low), high + BEYOND * (high - low)
        self._speed = 2.0 * np.array([joint.velocity for joint in joints]) * scale
        self._slack = smoothness * (high - low)
        self._sent = np.full(len(joints), np.nan)

    def forget(self) -> None:
        """Makes the next reading the first one: the robot was moved."""
        self.reading.heard[:] = NEVER
        self._sent[:] = np.nan

    def offer(
        self,
        at: float,
        joints: npt.NDArray[np.int64] | slice,
        position: Float64,
        velocity: Float64,
        effort: Float64,
        sent: float = np.nan,
    ) -> bool:
        """Some joints' state, measured at `at`; `joints` are indices [K], the rest is [K]. Whether it was
        believed.

        `sent`: when it was sent by the sender's clock, NaN where that is unknown. What waited for this
        process comes all at once: the time between two receipts may be shorter than between measurements.
        """
        reading = self.reading
        heard = reading.heard[: len(reading.position)][joints]
        known = heard > NEVER
        apart = np.fmax(
            np.where(known, at - heard, 0.0), np.minimum(sent - self._sent[joints], LONGEST_GAP_S)
        )
        reach = self._speed[joints] * apart + self._slack[joints]
        believed = (
            np.isfinite(at)
            and np.isfinite(position).all()
            and np.isfinite(velocity).all()
            and np.isfinite(effort).all()
            and (at > heard).all()
            and ((position >= self._low[joints]) & (position <= self._high[joints])).all()
            and (~known | (np.abs(position - reading.position[joints]) <= reach)).all()
        )
        if not believed:
            self.dropped += 1
            return False
        reading.position[joints] = position
        reading.velocity[joints] = velocity
        reading.effort[joints] = effort
        reading.heard[: len(reading.position)][joints] = at
        self._sent[joints] = sent
        self.believed += 1
        return True

    def offer_perception(self, at: float, values: Float64) -> bool:
        """What was perceived [P], at `at`; whether it was believed."""
        reading = self.reading
        fits = len(reading.perception) > 0 and values.shape == reading.perception.shape
        if not fits or not np.isfinite(values).all() or not at > reading.heard[-1]:
            self.dropped += 1
            return False
        reading.perception[:] = values
        reading.heard[-1] = at
        return True
