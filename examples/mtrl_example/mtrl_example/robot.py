"""The robot `example`: its process, and what its site allows unless told otherwise."""

from __future__ import annotations

from mtrl.deployment import Robot, RobotConfig

ROBOT = Robot(
    name="example",
    module="mtrl_example.robot_process",
    config=RobotConfig(name="example", rate_limit=0.5, settle_decisions=5, hold_last=()),
)
