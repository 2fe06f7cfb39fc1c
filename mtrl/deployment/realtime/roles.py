"""The processes of a deployment: what each is called, how urgent it is, and how it says that it is done."""

from __future__ import annotations

from dataclasses import dataclass

from .records import ControlField


@dataclass(frozen=True)
class Role:
    """One process of a session."""

    name: str
    """Word for it in messages."""
    priority: int
    """SCHED_FIFO priority that it asks for, 1 to 99: the higher, the less it may wait."""
    done: ControlField
    """Where it writes the newest episode that it is done with."""
    granted: ControlField | None = None
    """Where it writes whether it got that priority; None for one that asks for none."""
    module: str = ""
    """Module that is run; a robot brings its own."""


ROBOT = Role("robot", 30, ControlField.ROBOT_DONE, ControlField.ROBOT_FIFO)
"""Acts on the newest command, or holds by itself when commands stop: the watchdog of the servo."""
POLICY = Role(
    "policy",
    40,
    ControlField.POLICY_DONE,
    ControlField.POLICY_FIFO,
    "mtrl.deployment.realtime.policy_loop",
)
"""Proposes an action for every observation."""
SERVO = Role("servo", 80, ControlField.SERVO_DONE, ControlField.SERVO_FIFO, "mtrl.deployment.realtime.servo")
"""Decides every command: the guard, and the watchdog of policy and robot."""
LOGGER = Role("logger", 0, ControlField.LOGGER_DONE, module="mtrl.deployment.flight.logger")
"""Copies what the servo records into a file; a flight does not need it."""
FLYING = (ROBOT, POLICY, SERVO)
"""Those whom a flight needs."""
ROLES = {role.name: role for role in (*FLYING, LOGGER)}
"""Name -> role, in the order in which they start."""
