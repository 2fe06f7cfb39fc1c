"""The robot "arm", a simulated arm; `python -m mtrl.deployment.robots.arm.robot` is its process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtrl.tasks import Environment, Task

from ...artefact.manifest import Manifest
from ...guard.limits import RobotConfig
from ...realtime.processes import ProcessContext
from ..fit import kinematics_of, require_fit
from ..joint_environment import JointEnvironment
from ..robot import Robot, run_robot_in
from ..site import Site

SHIPPED = Path(__file__).with_name("arm.yaml")
"""The arm that comes with mtrl."""


def check(
    config: RobotConfig, tasks: Sequence[Task], artefact: str, manifest: Manifest | None = None
) -> None:
    """Refuses tasks that the arm's file does not bind."""
    require_fit(site_file(config), config, tasks, artefact, manifest)


def site_file(config: RobotConfig) -> Path:
    """The user's `robot.yaml`, or ours."""
    return Path(config.file) if config.file else SHIPPED


def connect(task: Task, context: ProcessContext) -> Environment:
    """An arm at rest for one task."""
    from .simulation import SimulatedArm

    path = site_file(context.spec.robot)
    site = Site.from_json(context.spec.site)
    body, thought = kinematics_of(site, path), kinematics_of(site, path)
    assert body is not None, "an arm's file was checked to name a model"
    return JointEnvironment(task, site, SimulatedArm(site, task, body), thought, context.spec.mode)


ROBOT = Robot(
    "arm",
    "mtrl.deployment.robots.arm.robot",
    RobotConfig(name="arm"),
    exclusive=False,
    watchable=True,
    check=check,
    site=site_file,
)

if __name__ == "__main__":
    run_robot_in(connect)
