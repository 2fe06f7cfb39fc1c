"""Robots: the site's own configuration, and what a robot process must honour.

A robot is a Python module run as its own process. It reads a `SessionSpec` from its standard input,
attaches the shared blocks of `wire.py`, publishes one observation per tick in wall-clock time and
acts on the newest command, which it stops trusting on its own when commands stop. `run_robot` does all
of that for a module that says how to connect to its hardware.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtrl.errors import ConfigError
from mtrl.structured import POSITIVE, SHARE, at_least, check

from .guard import GuardConfig
from .manifest import Limits, Manifest, TaskEntry


@dataclass(frozen=True)
class RobotConfig:
    """What a site allows on its robot; it belongs to the site, not to the policy."""

    name: str = "sim"
    """Registry name of the robot."""
    action_limit: float = 1.0
    """Largest magnitude of a command dimension, in the task's units of [-1, 1]; above 0, at most 1."""
    rate_limit: float = 1.0
    """Largest change of a command dimension per decision; above 0. 2 is the whole range."""
    acceleration_limit: float = 0.0
    """Largest change of that change per decision; 0 turns this guard off."""
    observation_limit: float = 100.0
    """Largest magnitude of an observation entry that is believed; above 0."""
    stale_limit_ms: float = 40.0
    """Oldest observation that is acted upon, in milliseconds; above 0."""
    inference_deadline_ms: float = 10.0
    """Longest inference whose result is used, in milliseconds; above 0."""
    command_timeout_ms: float = 100.0
    """Age of the newest command at which the robot holds by itself, in milliseconds beyond one period."""
    hold_budget: int = 80
    """Consecutive violating ticks that are held; one more is an emergency stop. At least 0."""
    hold_last: tuple[str, ...] = ("metaworld:3",)
    """Command dimensions that keep their last value while holding, as "suite:dimension"; all others,
    being velocities or position differences, become zero. Meta-World's fourth is the gripper."""
    soft_start_s: float = 0.0
    """Time over which commands fade in, in seconds; at least 1 is wise on hardware."""
    settle_decisions: int = 20
    """Decisions for which an episode goes on after its first success; at least 0."""
    fifo: bool = True
    """Ask the system for real-time priority; where it refuses, run at normal priority and say so."""
    startup_timeout_s: float = 60.0
    """Longest wait for the robot and the policy to be ready, in seconds; above 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hold_last", tuple(self.hold_last))
        check(
            self,
            "robot",
            action_limit=SHARE,
            rate_limit=POSITIVE,
            acceleration_limit=at_least(0),
            observation_limit=POSITIVE,
            stale_limit_ms=POSITIVE,
            inference_deadline_ms=POSITIVE,
            command_timeout_ms=POSITIVE,
            hold_budget=at_least(0),
            soft_start_s=at_least(0),
            settle_decisions=at_least(0),
            startup_timeout_s=POSITIVE,
        )
        for item in self.hold_last:
            suite, colon, dimension = item.partition(":")
            if not suite or not colon or not dimension.isdigit():
                raise ConfigError(
                    f'robot.hold_last holds "suite:dimension" such as "metaworld:3"; got {item!r}'
                )

    def guard(self, manifest: Manifest, entry: TaskEntry) -> GuardConfig:
        """The guard of one task: every limit the tighter of the robot's and the policy's."""
        limits = entry.limits.tighter(Limits(self.action_limit, self.rate_limit, self.observation_limit))
        kept = {item.partition(":")[2] for item in self.hold_last if item.partition(":")[0] == entry.suite}
        return GuardConfig(
            action_size=entry.action_size,
            hold=tuple("last" if str(k) in kept else "zero" for k in range(entry.action_size)),
            action_limit=min(limits.action, manifest.action_high, -manifest.action_low),
            rate_limit=limits.rate,
            acceleration_limit=self.acceleration_limit,
            observation_limit=limits.observation,
            stale_limit_s=self.stale_limit_ms / 1000,
            inference_deadline_s=self.inference_deadline_ms / 1000,
            hold_budget=self.hold_budget,
            soft_start_ticks=round(self.soft_start_s * entry.rate_hz),
        )


@dataclass(frozen=True)
class Robot:
    """A robot as the registry knows it."""

    name: str
    """Registry name."""
    module: str
    """Module that is run as the robot's process."""
    config: RobotConfig
    """Its defaults."""
