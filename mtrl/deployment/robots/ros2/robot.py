"""The robot "ros2", whatever speaks ROS 2; `python -m mtrl.deployment.robots.ros2.robot` is its process."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from mtrl.errors import ConfigError, UnknownNameError
from mtrl.tasks import Environment, Task

from ...artefact.manifest import Manifest
from ...guard.limits import RobotConfig
from ...realtime.processes import ProcessContext
from ..fit import kinematics_of, require_fit
from ..joint_environment import JointEnvironment
from ..robot import Robot, run_robot_in
from ..site import Site, read_site
from .wire import require_wire

START_SHARE = 0.8
"""Part of the start-up time for which the robot is waited for, so that its own reason is what is reported."""


def site_file(config: RobotConfig) -> Path:
    """The user's `robot.yaml`; raises ConfigError where none is named."""
    if not config.file:
        raise ConfigError("robot=ros2 needs robot.file=PATH of a robot.yaml; docs/robots.md has an example")
    return Path(config.file)


def check(
    config: RobotConfig, tasks: Sequence[Task], artefact: str, manifest: Manifest | None = None
) -> None:
    """Refuses a missing package, a missing file and tasks that the file does not bind."""
    require_wire()
    require_fit(site_file(config), config, tasks, artefact, manifest)
    interface = read_site(Path(config.file)).network.interface
    known = [name for _, name in socket.if_nameindex()]
    if interface not in known:
        raise UnknownNameError("network interface", interface, known)


def connect(task: Task, context: ProcessContext) -> Environment:
    """The robot behind its bridge; `reset` waits until it is heard of."""
    from .link import BridgedRobot

    config = context.spec.robot
    path = Path(config.file)
    site = Site.from_json(context.spec.site)
    kinematics = kinematics_of(site, path)
    robot = BridgedRobot(
        path,
        1.0 / task.rate_hz,
        fifo=config.fifo,
        patience_s=START_SHARE * config.startup_timeout_s,
        each_poll=context.raise_if_ended,
        publishes=context.spec.mode == "armed",
    )
    return JointEnvironment(task, site, robot, kinematics, context.spec.mode)


ROBOT = Robot(
    "ros2",
    "mtrl.deployment.robots.ros2.robot",
    RobotConfig(name="ros2", soft_start_s=1.0),
    watchable=True,
    check=check,
    site=site_file,
)

if __name__ == "__main__":
    run_robot_in(connect)
