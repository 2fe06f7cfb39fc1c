"""The bridge: a process of its own between ROS 2's wire and the control loop, linked to it by shared memory.

`python -m mtrl.deployment.robots.ros2.bridge` runs it. It decides nothing: it binds joints by name, refuses
what cannot be, publishes what the control loop commands, and repeats the last command when the control loop
falls silent or ends, because controllers of ROS 2 such as forward_command_controller have no time-out.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from mtrl.structured import POSITIVE, Checked, build

from ...artefact.joints import UNITS, Joint
from ...realtime.shared_memory import Seqlock, SharedBlock
from ...realtime.ticker import realtime_section
from ..joints import Intake
from ..site import Site, read_site
from . import cdr
from .wire import Wire

PRIORITY = 35
"""SCHED_FIFO priority: between the robot's control loop and the policy."""
POLL_S = 0.0005
"""Pause between two looks at the wire and at the memory."""
HOLD_S = 0.02
"""Time between two repetitions of the last command."""
COUNTS = 5
"""Numbers at the front of a reading's record."""
LOOK_S = 0.1
"""Time between two looks for other publishers of commands, before the first command."""
WRITTEN_BYTES = 2**20
"""Most bytes of any file that the bridge writes, which is standard error alone: Cyclone DDS reports every bad
datagram there, and no stranger may fill the disk."""
FAREWELL_S = 1.0
"""For so long the last command is repeated after the control loop has ended."""


@dataclass(frozen=True)
class BridgeSpec(Checked, place="bridge"):
    """The input of the bridge's process, one line of JSON on its standard input."""

    site: str
    """Path of `robot.yaml`."""
    parent: int
    """Process id of the control loop."""
    period_s: Annotated[float, POSITIVE]
    """Time between two commands."""
    fifo: bool
    """Whether to ask for real-time priority."""
    publishes: bool
    """Whether commands go out; without, no publisher of them is made."""
    state: tuple[int, ...]
    """Descriptor and words of the block of readings, which `Link` describes."""
    command: tuple[int, ...]
    """The same of the block of commands."""
    control: tuple[int, ...]
    """The same of the block of one integer: 1 ends the bridge."""

    def __post_init__(self) -> None:
        for name in ("state", "command", "control"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()


class Link:
    """The memory between a bridge and its control loop.

    A reading's record is: messages dropped, joint states believed, commands sent but for repetitions, other
    publishers of commands, whether an emergency stop is asked for, when each part was heard, and the values
    of `Reading`; its stamp is the oldest part's time. A command's record is the target [J], its stamp the
    time of the command.
    """

    def __init__(
        self, joints: int, perception: int, blocks: tuple[SharedBlock, SharedBlock, SharedBlock]
    ) -> None:
        """`blocks`: readings, commands, control."""
        self.blocks = blocks
        self.states, self.commands = Seqlock(blocks[0]), Seqlock(blocks[1])
        self.control = blocks[2].integers
        self.parts = joints + bool(perception)
        """Parts of a reading that are heard of apart: every joint, and the perception."""
        self.record = np.zeros(COUNTS + self.parts + 3 * joints + perception)
        """A reading's record, for whoever writes or reads it, of which the next three are views."""
        self.counts, self.heard, self.values = np.split(self.record, [COUNTS, COUNTS + self.parts])

    @staticmethod
    def create(joints: int, perception: int) -> Link:
        """A link in new memory."""
        width = COUNTS + joints + bool(perception) + 3 * joints + perception
        words = (Seqlock.words(width), Seqlock.words(joints), 1)
        state, command, control = (SharedBlock.create(count) for count in words)
        return Link(joints, perception, (state, command, control))

    @staticmethod
    def attach(spec: BridgeSpec, site: Site) -> Link:
        """The link that the control loop made."""
        state, command, control = (SharedBlock(*pair) for pair in (spec.state, spec.command, spec.control))
        return Link(len(site.joints), site.topics.perception_size, (state, command, control))

    def close(self) -> None:
        """Closes every descriptor."""
        for block in self.blocks:
            block.close()


class StopInput:
    """The emergency stop of a site: pressed, or silent for too long where the site says so.

    Once commands go out it stays pressed, so that a short press is not missed; only another flight ends it.
    """

    def __init__(self, timeout_s: float, now: float) -> None:
        """`timeout_s`: longest silence; 0 for any."""
        self._timeout_s = timeout_s
        self._heard_at = now
        self._pressed = False
        self._stopped = False

    def hear(self, pressed: bool, now: float) -> None:
        """A message that arrived."""
        self._pressed, self._heard_at = pressed, now
        self._stopped |= pressed

    def asked(self, now: float, flying: bool) -> bool:
        """Whether the flight has to stop, or must not begin."""
        silent = 0.0 < self._timeout_s < now - self._heard_at
        if not flying:
            self._stopped = False
        self._stopped |= flying and (silent or self._pressed)
        return self._stopped or self._pressed or silent


class Receiver:
    """Binds messages to the joints of a site, by name and in SI units, and refuses what is wrong."""

    def __init__(self, joints: tuple[Joint, ...], intake: Intake, stamps: str) -> None:
        """`stamps`: of `Site`."""
        self._index = {joint.name: index for index, joint in enumerate(joints)}
        self._units = np.array([UNITS[joint.unit] for joint in joints])
        self._intake = intake
        self._by_header = stamps == "header"

    def joint_state(self, message: cdr.JointState | None, sent: float, at: float, wall: float) -> None:
        """A message that arrived at `at` on the monotonic clock and `wall` on the wall clock; `sent` by the
        sender's.
        """
        if message is None:
            self._intake.dropped += 1
            return
        rows = [row for row, name in enumerate(message.names) if name in self._index]
        if not rows:
            # the state of something else
            return
        joints = np.array([self._index[message.names[row]] for row in rows])
        units = self._units[joints]
        position = message.position[rows] * units
        velocity = message.velocity[rows] * units if len(message.velocity) else np.zeros(len(rows))
        effort = message.effort[rows] if len(message.effort) else np.zeros(len(rows))
        if self._by_header:
            # a stamp from the future is no younger than its receipt
            at -= max(0.0, wall - message.stamp)
        self._intake.offer(at, joints, position, velocity, effort, sent)

    def perception(self, values: cdr.Float64 | None, at: float) -> None:
        """An array that arrived at `at`."""
        if values is None:
            self._intake.dropped += 1
        else:
            self._intake.offer_perception(at, values)


class Bridge:
    """Both directions of the wire, one step at a time."""

    def __init__(self, site: Site, link: Link, wire: Wire, period_s: float) -> None:
        """`period_s`: time in which a commanded point of a trajectory is to be reached."""
        self._link = link
        self._wire = wire
        self._period_s = period_s
        self._intake = Intake(site.joints, site.topics.perception_size, site.smoothness)
        self._receiver = Receiver(site.joints, self._intake, site.stamps)
        self._stop = StopInput(site.topics.stop_timeout_ms / 1000, time.monotonic())
        self._target = np.zeros(len(site.joints))
        self._sequence = 0
        self._sent, self._sent_at = 0, 0.0
        self._rivals, self._looked_at = 0, 0.0

    def step(self) -> None:
        """Takes what arrived and sends what was commanded, or the last command again when that is due."""
        for state, sent in self._wire.joint_states():
            self._receiver.joint_state(state, sent, time.monotonic(), time.time())
        for perceived, _ in self._wire.perceptions():
            self._receiver.perception(perceived, time.monotonic())
        now = time.monotonic()
        for pressed, _ in self._wire.stops():
            self._intake.dropped += pressed is None
            if pressed is not None:
                self._stop.hear(pressed, now)
        if not self._sequence and now - self._looked_at > LOOK_S:
            self._rivals, self._looked_at = self._wire.rivals(), now
        self._publish_reading(now)
        sequence = self._link.commands.sequence
        if sequence != self._sequence and self._link.commands.read(self._target) is not None:
            self._sequence = sequence
            self._sent += 1
            self._send(now)
        elif self._sequence and now - self._sent_at > max(HOLD_S, 2 * self._period_s):
            self._send(now)

    def _publish_reading(self, now: float) -> None:
        intake, link, heard = self._intake, self._link, self._intake.reading.heard
        stop = self._stop.asked(now, bool(self._sequence))
        counts = (intake.dropped, intake.believed, self._sent, self._rivals, stop)
        if (link.counts == counts).all() and (link.heard == heard).all():
            return
        link.counts[:], link.heard[:], link.values[:] = counts, heard, intake.reading.values
        link.states.write(intake.reading.observed_at, link.record)

    def _send(self, now: float) -> None:
        self._wire.command(self._target, self._period_s)
        self._sent_at = now


def run(spec: BridgeSpec, ended: Callable[[], bool]) -> None:
    """Runs until the control loop says so or is gone; in the latter case its last command is repeated."""
    site = read_site(Path(spec.site))
    link = Link.attach(spec, site)
    wire = Wire(site.joints, site.topics, site.network, publishes=spec.publishes)
    bridge = Bridge(site, link, wire, spec.period_s)
    with realtime_section(PRIORITY if spec.fifo else 0):
        until = np.inf
        while time.monotonic() < until and not link.control[0]:
            bridge.step()
            if until == np.inf and ended():
                until = time.monotonic() + FAREWELL_S
            time.sleep(POLL_S)


def main() -> None:
    """The process of the bridge."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITTEN_BYTES, WRITTEN_BYTES))
    spec = build(BridgeSpec, json.load(sys.stdin))
    run(spec, lambda: os.getppid() != spec.parent)


if __name__ == "__main__":
    main()
