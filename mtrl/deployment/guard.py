"""The guard: the only thing that decides what a robot is told, in place of whatever a policy proposes.

Pure: no clock, no file, no randomness. The same calls give the same commands bit for bit, which is
how a flight log is checked. Checks run in this order every tick: age of the observation, observation
finite and in range, inference deadline, action finite, clip, rate limit, acceleration limit; a violation
replaces the action by the hold action, which the same limits bring about without a jump.

A software guard is not a safety-rated stop (ISO 10218, ISO 13849).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, GuardError

Float64 = npt.NDArray[np.float64]


class GuardState(IntEnum):
    """Stages of a run, in order; only RUN and HOLD alternate, and ESTOP is left by a person alone."""

    INIT = 0
    VERIFIED = 1
    CONNECTED = 2
    ARMED = 3
    SOFT_START = 4
    RUN = 5
    HOLD = 6
    ESTOP = 7


class GuardFlag(IntFlag):
    """What a tick's guards found. The first five violate and hold; the rest only shape the command."""

    NONE = 0
    STALE_OBSERVATION = 1
    OBSERVATION_NOT_FINITE = 2
    OBSERVATION_OUT_OF_RANGE = 4
    LATE_INFERENCE = 8
    ACTION_NOT_FINITE = 16
    CLIPPED = 32
    RATE_LIMITED = 64
    ACCELERATION_LIMITED = 128
    NOT_ARMED = 256


OBSERVATION_VIOLATIONS = (
    GuardFlag.STALE_OBSERVATION | GuardFlag.OBSERVATION_NOT_FINITE | GuardFlag.OBSERVATION_OUT_OF_RANGE
)
VIOLATIONS = OBSERVATION_VIOLATIONS | GuardFlag.LATE_INFERENCE | GuardFlag.ACTION_NOT_FINITE

_ORDER = (GuardState.INIT, GuardState.VERIFIED, GuardState.CONNECTED, GuardState.ARMED)


@dataclass(frozen=True)
class GuardConfig:
    """Limits of one task on one robot; the tighter of the artefact's request and the robot's own."""

    action_size: int
    """Command dimensions A."""
    hold: tuple[str, ...]
    """Per dimension what holding means: "zero" for velocities and position differences (no motion),
    "last" for positions and grippers (keep what was commanded last). Length A."""
    action_limit: float = 1.0
    """Largest magnitude of a command dimension."""
    rate_limit: float = 2.0
    """Largest change of a command dimension from one tick to the next."""
    acceleration_limit: float = 0.0
    """Largest change of that change; 0 turns this guard off. The limits above win over it."""
    observation_limit: float = 1000.0
    """Largest magnitude of an observation entry."""
    stale_limit_s: float = 0.04
    """Oldest observation that is acted upon, in seconds."""
    inference_deadline_s: float = 0.01
    """Longest inference whose result is used, in seconds."""
    hold_budget: int = 80
    """Consecutive violating ticks that are held; one more latches ESTOP."""
    soft_start_ticks: int = 0
    """Clean ticks over which commands fade in from the hold action; 0 starts at full strength."""

    def __post_init__(self) -> None:
        if self.action_size < 1 or len(self.hold) != self.action_size:
            raise ConfigError(
                f"hold needs one word per command dimension; got {self.hold} for {self.action_size}"
            )
        if not set(self.hold) <= {"zero", "last"}:
            raise ConfigError(f'hold is "zero" or "last" per dimension; got {self.hold}')
        positive = (
            self.action_limit, self.rate_limit, self.observation_limit, self.stale_limit_s,
            self.inference_deadline_s,
        )  # fmt: skip
        if not all(np.isfinite(value) and value > 0 for value in positive):
            raise ConfigError(f"guard limits are positive and finite; got {self}")
        if min(self.acceleration_limit, self.hold_budget, self.soft_start_ticks) < 0:
            raise ConfigError(f"guard limits are not negative; got {self}")


@dataclass(frozen=True)
class GuardedAction:
    """What one tick sends."""

    action: Float64
    """The command [A]; owned by the guard and overwritten by its next tick."""
    flags: GuardFlag
    """What the guards found."""
    state: GuardState
    """State after this tick."""


@dataclass(frozen=True)
class Transition:
    """A change of state."""

    at: float
    """Time of the tick that caused it, in seconds of the caller's clock."""
    before: GuardState
    """State left."""
    after: GuardState
    """State entered."""
    cause: str
    """Why."""


class Guard:
    """Limits, watchdog and state machine of one robot in one episode."""

    def __init__(self, config: GuardConfig) -> None:
        """Begins in INIT with a command of zeros."""
        self.config = config
        self.state = GuardState.INIT
        self.transitions: list[Transition] = []
        size = config.action_size
        self._keep = np.array([word == "last" for word in config.hold])
        self._previous = np.zeros(size)
        self._step = np.zeros(size)
        self._target = np.zeros(size)
        self._command = np.zeros(size)
        self._holds = 0
        self._clean = 0

    def arm(self, now: float, causes: tuple[str, str, str]) -> None:
        """Walks INIT, VERIFIED, CONNECTED, ARMED; `causes` say what justified each step.

        Raises GuardError unless the guard is in INIT.
        """
        if self.state is not GuardState.INIT:
            raise GuardError(f"only a guard in INIT can be armed; this one is in {self.state.name}")
        for state, cause in zip(_ORDER[1:], causes, strict=True):
            self._move(state, now, cause)

    def observation_flags(
        self, observation: npt.NDArray[np.floating], observed_at: float, now: float
    ) -> GuardFlag:
        """The observation's violations alone, so that a policy need not plan on a bad observation.

        `observation`: [D_task]; `observed_at` and `now` in seconds of one clock. An observation from
        the future counts as stale: its stamp cannot be trusted.
        """
        flags = GuardFlag.NONE
        if not 0.0 <= now - observed_at <= self.config.stale_limit_s:
            flags |= GuardFlag.STALE_OBSERVATION
        largest = np.abs(observation).max()
        if not np.isfinite(largest):
            flags |= GuardFlag.OBSERVATION_NOT_FINITE
        elif largest > self.config.observation_limit:
            flags |= GuardFlag.OBSERVATION_OUT_OF_RANGE
        return flags

    def check(
        self,
        observation: npt.NDArray[np.floating],
        observed_at: float,
        action: npt.NDArray[np.floating],
        inference_s: float,
        now: float,
    ) -> GuardedAction:
        """Decides one tick's command.

        `action`: the proposal [A], ignored when the observation violates. `inference_s`: time that
        its inference took, 0 when it comes from an earlier chunk. `now`: when the observation was read.
        """
        flags = self.observation_flags(observation, observed_at, now)
        if not flags:
            if not inference_s <= self.config.inference_deadline_s:
                flags |= GuardFlag.LATE_INFERENCE
            # Tested before any clip: clip(NaN) is NaN.
            if not np.isfinite(action).all():
                flags |= GuardFlag.ACTION_NOT_FINITE
        self._advance(flags, now)
        moving = self.state in (GuardState.RUN, GuardState.SOFT_START)
        if self.state < GuardState.ARMED:
            flags |= GuardFlag.NOT_ARMED
        flags |= self._shape(action, moving)
        return GuardedAction(self._command, flags, self.state)

    def _advance(self, flags: GuardFlag, now: float) -> None:
        if self.state is GuardState.ESTOP or self.state < GuardState.ARMED:
            return
        if flags & VIOLATIONS:
            self._holds += 1
            self._clean = 0
            cause = _names(flags & VIOLATIONS)
            if flags & GuardFlag.ACTION_NOT_FINITE:
                self._move(GuardState.ESTOP, now, cause)
            elif self._holds > self.config.hold_budget:
                self._move(
                    GuardState.ESTOP, now, f"held for more than {self.config.hold_budget} ticks: {cause}"
                )
            elif self.state is not GuardState.HOLD:
                self._move(GuardState.HOLD, now, cause)
            return
        self._holds = 0
        self._clean += 1
        if self._clean <= self.config.soft_start_ticks:
            if self.state is not GuardState.SOFT_START:
                self._move(GuardState.SOFT_START, now, "clean tick")
        elif self.state is not GuardState.RUN:
            self._move(GuardState.RUN, now, "clean tick")

    def _shape(self, action: npt.NDArray[np.floating], moving: bool) -> GuardFlag:
        """Writes the command: target, clip, rate limit, acceleration limit, in this order."""
        config, target, command, step = self.config, self._target, self._command, self._step
        flags = GuardFlag.NONE
        np.multiply(self._previous, self._keep, out=target)
        if moving:
            if self.state is GuardState.SOFT_START:
                target += (action - target) * (self._clean / (config.soft_start_ticks + 1))
            else:
                target[:] = action
            np.clip(target, -config.action_limit, config.action_limit, out=command)
            if (command != target).any():
                flags |= GuardFlag.CLIPPED
        else:
            command[:] = target
        # Holding obeys the rate limit too: a stop is brought about as smoothly as a motion.
        np.subtract(command, self._previous, out=target)
        rate = config.rate_limit
        if np.abs(target).max() > rate:
            flags |= GuardFlag.RATE_LIMITED
            np.clip(target, -rate, rate, out=target)
        if config.acceleration_limit > 0:
            flags |= self._limit_acceleration(target)
        np.add(self._previous, target, out=command)
        np.clip(command, -config.action_limit, config.action_limit, out=command)
        np.subtract(command, self._previous, out=step)
        self._previous[:] = command
        return flags

    def _limit_acceleration(self, change: Float64) -> GuardFlag:
        limit = self.config.acceleration_limit
        low, high = self._step - limit, self._step + limit
        if ((change >= low) & (change <= high)).all():
            return GuardFlag.NONE
        np.clip(change, low, high, out=change)
        return GuardFlag.ACCELERATION_LIMITED

    def _move(self, state: GuardState, now: float, cause: str) -> None:
        self.transitions.append(Transition(now, self.state, state, cause))
        self.state = state


def _names(flags: GuardFlag) -> str:
    return " and ".join(str(flag.name) for flag in GuardFlag if flag & flags)
