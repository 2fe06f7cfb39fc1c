"""The limits of a site on its robot, and of the guard for one task on that robot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.structured import POSITIVE, SHARE, Checked, Range, at_least, between

from ..artefact.manifest import Manifest, TaskEntry

MODES = ("armed", "dry-run", "shadow")
"""What a deployment does to its robot. armed: it moves it. dry-run: all but the last step, the command to the
robot. shadow: it reads the robot, which somebody else may move, and works out no command for it."""
MINUTE_MS = Range(0, 60_000, includes_low=False)
"""A time limit that a robot notices, in milliseconds."""
HOUR_S = Range(0, 3600, includes_low=False)
"""A time limit that a person notices, in seconds."""


@dataclass(frozen=True)
class GuardConfig(Checked, place="guard"):
    """Limits of one task on one robot: of each pair, the tighter of the artefact's and the robot's."""

    action_size: Annotated[int, at_least(1)]
    """Command dimensions A; 1 where the command is the index of a choice."""
    hold: Annotated[tuple[str, ...], ("zero", "last")]
    """Per dimension what holding means: "zero" for velocities and position differences (no motion),
    "last" for positions and grippers (keep what was commanded last). Of a choice "zero" is the first one,
    with which most suites do nothing. Length A."""
    choices: Annotated[int, at_least(0)] = 0
    """Number of choices, of which a command is one by its index; 0 for continuous commands. No limit may
    change a choice."""
    action_limit: Annotated[float, POSITIVE] = 1.0
    """Largest magnitude of a command dimension."""
    rate_limit: Annotated[float, POSITIVE] = 2.0
    """Largest change of a command dimension from one tick to the next."""
    acceleration_limit: Annotated[float, between(0, 4)] = 0.0
    """Largest change of that change; 0 turns this guard off. The limits above win over it."""
    observation_limit: Annotated[float, POSITIVE] = 1000.0
    """Largest magnitude of an observation entry."""
    stale_limit_s: Annotated[float, POSITIVE] = 0.04
    """Oldest observation that is acted upon, in seconds."""
    proposal_limit_s: Annotated[float, POSITIVE] = 0.06
    """Longest time without a new proposal of the policy, in seconds."""
    inference_deadline_s: Annotated[float, POSITIVE] = 0.01
    """Longest inference whose result is used, in seconds."""
    hold_budget: Annotated[int, at_least(0)] = 80
    """Consecutive violating ticks that are held; one more latches ESTOP."""
    soft_start_ticks: Annotated[int, at_least(0)] = 0
    """Clean ticks over which commands fade in from the hold action; 0 starts at full strength."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.hold) != self.action_size:
            raise ConfigError(
                f"guard.hold needs one word per command dimension; got {self.hold} for {self.action_size}"
            )
        changing = self.acceleration_limit > 0 or self.soft_start_ticks > 0
        if self.choices and (changing or min(self.action_limit, self.rate_limit) < self.choices - 1):
            raise ConfigError(
                f"a choice of {self.choices} is taken as it is: action_limit and rate_limit of at least "
                f"{self.choices - 1}, no acceleration_limit and no soft start; got {self}"
            )


@dataclass(frozen=True)
class RobotConfig(Checked, place="robot"):
    """The site's configuration of its robot; a policy cannot loosen it."""

    name: str = "sim"
    """Registry name of the robot."""
    file: str = ""
    """Path of the site's robot.yaml, for robots that have one: `ros2` needs it, `arm` brings its own."""
    action_limit: Annotated[float, SHARE] = 1.0
    """Largest magnitude of a command dimension, in the task's units of [-1, 1]; above 0, at most 1."""
    rate_limit: Annotated[float, Range(0, 2, includes_low=False)] = 1.0
    """Largest change of a command dimension per decision; above 0, at most 2, the whole range."""
    acceleration_limit: Annotated[float, between(0, 4)] = 0.0
    """Largest change of that change per decision, at most 4; 0 turns this guard off."""
    observation_limit: Annotated[float, POSITIVE] = 100.0
    """Largest magnitude of an observation entry that is accepted; above 0, finite."""
    stale_limit_ms: Annotated[float, MINUTE_MS] = 40.0
    """Oldest observation that is acted upon, in milliseconds; above 0, at most a minute."""
    proposal_periods: Annotated[float, Range(0, 10_000, includes_low=False)] = 3.0
    """Decisions without a proposal of the policy after which the servo holds the robot; above 0."""
    inference_deadline_ms: Annotated[float, MINUTE_MS] = 10.0
    """Longest inference whose result is used, in milliseconds; above 0, at most a minute."""
    command_timeout_ms: Annotated[float, MINUTE_MS] = 100.0
    """Age of the newest command at which the robot holds by itself, in milliseconds beyond one period;
    above 0, at most a minute."""
    delay_ms: Annotated[float, between(0, 1000)] = 0.0
    """Time by which a simulation gets every command late, in milliseconds, as over a slow network; at most a
    second. Hardware has its own."""
    hold_budget: Annotated[int, at_least(0)] = 80
    """Consecutive violating ticks that are held; one more is an emergency stop. At least 0."""
    hold_last: tuple[str, ...] = ("metaworld:3",)
    """Command dimensions that keep their last value while holding, as "suite:dimension"; all others,
    being velocities or position differences, become zero. Meta-World's fourth is the gripper. A discrete task
    has dimension 0: it repeats its last choice with "suite:0", and takes the first one otherwise."""
    soft_start_s: Annotated[float, between(0, 3600)] = 0.0
    """Time over which commands fade in, in seconds, at most an hour; at least 1 is wise on hardware. Above 0
    it lasts a tick at least."""
    settle_decisions: Annotated[int, at_least(0)] = 20
    """Decisions for which an episode goes on after its first success; at least 0."""
    servo_hz: Annotated[float, between(50, 1000)] = 500.0
    """Ticks of the servo per second, 50 to 1000, at least two for each decision: it looks for observations
    and proposals, commands the robot, and holds it when the policy is lost."""
    fifo: bool = True
    """Request real-time priority; where the system refuses, run at normal priority and report it."""
    startup_timeout_s: Annotated[float, HOUR_S] = 60.0
    """Longest wait for the robot and the policy to be ready, in seconds; above 0, at most an hour."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hold_last", tuple(self.hold_last))
        super().__post_init__()
        for item in self.hold_last:
            suite, colon, dimension = item.partition(":")
            if not suite or not colon or not dimension.isdigit():
                raise ConfigError(
                    f'robot.hold_last holds "suite:dimension" such as "metaworld:3"; got {item!r}'
                )

    def kept_dimensions(self, suite: str) -> set[int]:
        """Command dimensions of a suite that keep their last value while holding."""
        pairs = (item.partition(":") for item in self.hold_last)
        return {int(dimension) for name, _, dimension in pairs if name == suite}

    def guard(self, manifest: Manifest, entry: TaskEntry) -> GuardConfig:
        """The limits of one task: of each pair, the tighter of the robot's and the policy's. Those of a
        command and the soft start are for continuous ones.
        """
        limits = entry.limits
        kept = self.kept_dimensions(entry.suite)
        if entry.rate_hz > self.servo_hz / 2:
            raise ConfigError(
                f"{entry.name} makes {entry.rate_hz:g} decisions a second, for which robot.servo_hz must be "
                f"{2 * entry.rate_hz:g} at least; got {self.servo_hz:g}"
            )
        found = GuardConfig(
            action_size=entry.action_size,
            hold=tuple("last" if k in kept else "zero" for k in range(entry.action_size)),
            action_limit=min(self.action_limit, limits.action, manifest.action_high, -manifest.action_low),
            rate_limit=min(self.rate_limit, limits.rate),
            acceleration_limit=self.acceleration_limit,
            observation_limit=min(self.observation_limit, limits.observation),
            stale_limit_s=self.stale_limit_ms / 1000,
            proposal_limit_s=self.proposal_periods / entry.rate_hz,
            inference_deadline_s=self.inference_deadline_ms / 1000,
            hold_budget=self.hold_budget,
            soft_start_ticks=max(round(self.soft_start_s * entry.rate_hz), int(self.soft_start_s > 0)),
        )
        if not entry.choices:
            return found
        return replace(
            found,
            choices=entry.choices,
            action_limit=float(entry.choices),
            rate_limit=float(entry.choices),
            acceleration_limit=0.0,
            soft_start_ticks=0,
        )


def is_choice(command: npt.NDArray[np.floating], choices: int) -> bool:
    """Whether a command [1] is the index of one of `choices`."""
    return bool(0 <= command[0] < choices and command[0] == np.floor(command[0]))
