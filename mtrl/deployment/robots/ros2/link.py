"""The control loop's end of the bridge."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mtrl.errors import GuardError
from mtrl.rollout import child_environment

from ..joints import NEVER, Float64, Reading
from ..site import Site, read_site
from .bridge import BridgeSpec, Link
from .wire import require_wire

MODULE = "mtrl.deployment.robots.ros2.bridge"
POLL_S = 0.005
GRACE_S = 2.0
MESSAGE = 4000
"""Characters of the bridge's last words that are shown."""


class BridgedRobot:
    """A `RobotIO` whose joints are on ROS 2's wire, behind a bridge in a process of its own."""

    def __init__(
        self,
        path: Path,
        period_s: float,
        *,
        fifo: bool,
        patience_s: float = 30.0,
        each_poll: Callable[[], None] = lambda: None,
        publishes: bool = True,
    ) -> None:
        """Starts the bridge of the `robot.yaml` at `path`.

        `period_s`: time between two commands. `patience_s`: longest wait for the robot. `each_poll` is called
        while waiting and may raise. Without `publishes` there is no publisher of commands: whoever else moves
        the robot is left alone.
        """
        require_wire()
        self.site: Site = read_site(path)
        joints, perception = len(self.site.joints), self.site.topics.perception_size
        self.reading = Reading(joints, perception)
        self.dropped = self.believed = self.sent = 0
        """Messages refused, joint states believed, and commands on the wire but for repetitions."""
        self._patience_s = patience_s
        self._each_poll = each_poll
        self._link = Link.create(joints, perception)
        self._sequence = 0
        self._last: Float64 | None = None
        spec = BridgeSpec(
            str(path.resolve()),
            os.getpid(),
            period_s,
            fifo,
            publishes,
            *((block.descriptor, block.words) for block in self._link.blocks),
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=child_environment(),
            pass_fds=[block.descriptor for block in self._link.blocks],
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # one that died at once is reported by `read`, with its last words
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(json.dumps(asdict(spec)).encode())

    def begin(self, start: int) -> None:
        """Waits until every joint, and the perception, was heard of; `start` is the site's business.

        Raises GuardError naming what did not come.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            self.read()
            if self.reading.observed_at > NEVER:
                return
            self._each_poll()
            if time.monotonic() > deadline:
                raise GuardError(self._silence())
            time.sleep(POLL_S)

    def read(self) -> None:
        """Copies the newest reading.

        Raises GuardError when the bridge has ended, and before the first command when somebody else publishes
        commands of this robot.
        """
        if self._process.poll() is not None:
            raise GuardError(f"the bridge to ROS 2 ended:\n{self._last_words()}")
        link, reading = self._link, self.reading
        sequence = link.states.sequence
        if sequence == self._sequence or link.states.read(link.record) is None:
            return
        self._sequence = sequence
        self.dropped, self.believed, self.sent, rivals, stop = link.counts.astype(int).tolist()
        reading.heard[:], reading.values[:], reading.stop = link.heard, link.values, bool(stop)
        if rivals and self._last is None:
            raise GuardError(
                f"{rivals} others publish {self.site.topics.command} too; two controllers on one robot "
                "fight. End them, or name another topics.command in robot.yaml"
            )

    def command(self, target: Float64) -> None:
        """Hands positions [J] to the bridge."""
        self._last = np.array(target, dtype=np.float64)
        self._link.commands.write(time.monotonic(), self._last)

    def hold(self) -> None:
        """Hands the last positions to the bridge once more."""
        if self._last is not None:
            self._link.commands.write(time.monotonic(), self._last)

    def close(self) -> None:
        """Ends the bridge; the robot stays at its last command."""
        self._link.control[0] = 1
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._link.close()

    def _silence(self) -> str:
        topics, network = self.site.topics, self.site.network
        where = f"domain {network.domain} on {network.interface}"
        joints = zip(self.site.joints, self.reading.heard, strict=False)
        missing = [joint.name for joint, heard in joints if heard == NEVER]
        if not missing:
            what = f"no array of {topics.perception_size} numbers came on {topics.perception}"
        elif len(missing) == len(self.site.joints):
            what = f"no joint state came on {topics.state}"
        else:
            what = f"{topics.state} never held {', '.join(missing)}"
        refused = f"; {self.dropped} messages were refused" if self.dropped else ""
        return (
            f"{what} within {self._patience_s:g} s ({where}){refused}. Does the robot run, and do topics, "
            "network.domain and network.interface of robot.yaml fit it?"
        )

    def _last_words(self) -> str:
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace")[-MESSAGE:].strip()
        return words or f"no message; exit status {self._process.returncode}"
