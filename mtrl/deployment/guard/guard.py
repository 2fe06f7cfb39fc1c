"""The guard: the only code that decides a robot's command, from whatever a policy proposes.

Pure: no clock, no file, no randomness. The same calls give the same commands bit for bit, which is
how a flight log is checked.

A software guard is not a safety-rated stop (ISO 10218, ISO 13849).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from mtrl.errors import GuardError

from .limits import GuardConfig, is_choice

Float64 = npt.NDArray[np.float64]

ARM_CAUSES = ("artefact verified", "first observation of the episode", "deploy was asked for")
"""Causes of the transitions from INIT through VERIFIED and CONNECTED to ARMED."""


class GuardState(IntEnum):
    """Stages of a run. Up to ARMED they follow in order, then SOFT_START, RUN and HOLD alternate: after a
    HOLD comes SOFT_START again where `soft_start_ticks` is above 0, else RUN. No transition leaves ESTOP.
    """

    INIT = 0
    VERIFIED = 1
    CONNECTED = 2
    ARMED = 3
    SOFT_START = 4
    RUN = 5
    HOLD = 6
    ESTOP = 7


class GuardFlag(IntFlag):
    """Findings of one tick. STALE_OBSERVATION to LATE_INFERENCE and STALE_PROPOSAL put the guard into HOLD,
    ACTION_NOT_FINITE, NO_SUCH_CHOICE and the breaches that a robot reports (JOINT_BEYOND_LIMIT to
    STOP_REQUESTED) into ESTOP; the others say what was limited, or that the guard is not armed.
    """

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
    NO_SUCH_CHOICE = 512
    STALE_PROPOSAL = 1024
    JOINT_BEYOND_LIMIT = 2048
    EFFORT_BEYOND_LIMIT = 4096
    NOT_FOLLOWING = 8192
    VELOCITY_BEYOND_LIMIT = 16384
    STOP_REQUESTED = 32768
    WORKSPACE_LIMITED = 65536
    IK_UNSOLVED = 131072
    JOINT_POSITION_LIMITED = 262144
    JOINT_RATE_LIMITED = 524288
    SELF_COLLISION = 1048576


OBSERVATION_VIOLATIONS = (
    GuardFlag.STALE_OBSERVATION | GuardFlag.OBSERVATION_NOT_FINITE | GuardFlag.OBSERVATION_OUT_OF_RANGE
)
BREACHES = (
    GuardFlag.JOINT_BEYOND_LIMIT
    | GuardFlag.EFFORT_BEYOND_LIMIT
    | GuardFlag.NOT_FOLLOWING
    | GuardFlag.VELOCITY_BEYOND_LIMIT
    | GuardFlag.STOP_REQUESTED
)
"""What a robot measures of its joints beyond their limits, or is told by its emergency stop, and reports."""
JOINT_LIMITS = (
    GuardFlag.WORKSPACE_LIMITED
    | GuardFlag.IK_UNSOLVED
    | GuardFlag.JOINT_POSITION_LIMITED
    | GuardFlag.JOINT_RATE_LIMITED
    | GuardFlag.SELF_COLLISION
)
"""What a robot of joints reports of the last command: limits of workspace and joints that changed it."""
GIVEN_UP = GuardFlag.IK_UNSOLVED | GuardFlag.SELF_COLLISION
"""Of these, what leaves the joints where they are."""
STOPPING = GuardFlag.ACTION_NOT_FINITE | GuardFlag.NO_SUCH_CHOICE | BREACHES
HOLDING = OBSERVATION_VIOLATIONS | GuardFlag.STALE_PROPOSAL | GuardFlag.LATE_INFERENCE
VIOLATIONS = HOLDING | STOPPING


@dataclass(frozen=True)
class GuardedAction:
    """The outcome of one tick."""

    action: Float64
    """The command [A], a buffer that the next tick overwrites."""
    flags: GuardFlag
    """Findings of this tick."""
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
    """Reason for the change."""


class Guard:
    """Limits, watchdog and state machine of one robot in one episode.

    Every tick `check` applies these limits of `GuardConfig`, in this order:

    0. what the robot reports of its joints; latches ESTOP (`check`)
    1. `stale_limit_s`: age of the observation (`check`)
    2. finite observation, then `observation_limit` (`check`)
    3. `proposal_limit_s`: age of the policy's newest proposal (`_action_flags`)
    4. `inference_deadline_s`: duration of the inference (`_action_flags`)
    5. finite action, of a discrete task one of `choices` (`_action_flags`); a violation latches ESTOP
    6. `hold_budget`: consecutive violations of 1 to 4 before ESTOP (`_advance`)
    7. `soft_start_ticks`: fade-in from the hold action (`_target_of`)
    8. `action_limit`: magnitude (`check`)
    9. `rate_limit`: change per tick (`check`)
    10. `acceleration_limit`: change of the change per tick, 0 for none (`check`)

    A violation of 1 to 5 replaces the action by the hold action. Limits 8 to 10 apply to holding too, so
    that a stop does not jump. On a robot of joints the workspace, inverse kinematics and the limits of every
    joint follow in its own process (`robots/joint_guard.py`), whose findings come back with the next
    observation: targets without a solution latch ESTOP after `hold_budget` decisions in a row.
    """

    def __init__(self, config: GuardConfig) -> None:
        """Begins in INIT with a command of zeros."""
        self.config = config
        self.state = GuardState.INIT
        self.transitions: list[Transition] = []
        self._keep = np.array([word == "last" for word in config.hold])
        self._previous, self._previous_change, self._target, self._change, self._command = np.zeros(
            (5, config.action_size)
        )
        self._violating_ticks = 0
        self._clean_ticks = 0
        self._unsolved_ticks = 0

    def arm(self, now: float) -> None:
        """Moves through VERIFIED and CONNECTED to ARMED; raises GuardError unless the guard is in INIT."""
        if self.state is not GuardState.INIT:
            raise GuardError(f"only a guard in INIT can be armed; this one is in {self.state.name}")
        stages = (GuardState.VERIFIED, GuardState.CONNECTED, GuardState.ARMED)
        for state, cause in zip(stages, ARM_CAUSES, strict=True):
            self._move(state, now, cause)

    def check(
        self,
        observation: npt.NDArray[np.floating],
        observed_at: float,
        action: npt.NDArray[np.floating],
        inference_s: float,
        now: float,
        proposed_at: float,
        breach: int = 0,
    ) -> GuardedAction:
        """Decides one tick's command.

        `observation`: [D_task], published at `observed_at`. `action`: the proposal [A], ready at
        `proposed_at`, ignored when the observation violates or it is too old. `inference_s`: duration of its
        inference, 0 when it comes from an earlier chunk. `now`: when this is decided. `breach`: bits of
        `BREACHES` and `JOINT_LIMITS` that the robot reports. Times are seconds of one clock.
        """
        reported = GuardFlag(breach)
        flags = observation_flags(self.config, observation, observed_at, now) | (reported & BREACHES)
        if not flags:
            flags = self._action_flags(action, inference_s, now - proposed_at)
        flags |= reported & JOINT_LIMITS
        self._advance(flags, now)
        if self.state < GuardState.ARMED:
            flags |= GuardFlag.NOT_ARMED
        target = self._target_of(action)
        config = self.config
        flags |= _limited(target, -config.action_limit, config.action_limit, GuardFlag.CLIPPED)
        change = np.subtract(target, self._previous, out=self._change)
        flags |= _limited(change, -config.rate_limit, config.rate_limit, GuardFlag.RATE_LIMITED)
        if (most := config.acceleration_limit) > 0:
            low, high = self._previous_change - most, self._previous_change + most
            flags |= _limited(change, low, high, GuardFlag.ACCELERATION_LIMITED)
        command = np.add(self._previous, change, out=self._command)
        # The sum may round beyond the limit, and the acceleration limit may lead beyond it.
        np.clip(command, -config.action_limit, config.action_limit, out=command)
        np.subtract(command, self._previous, out=self._previous_change)
        self._previous[:] = command
        return GuardedAction(command, flags, self.state)

    def _action_flags(self, action: npt.NDArray[np.floating], inference_s: float, age_s: float) -> GuardFlag:
        flags = GuardFlag.NONE
        if not 0.0 <= age_s <= self.config.proposal_limit_s:
            flags |= GuardFlag.STALE_PROPOSAL
        if not inference_s <= self.config.inference_deadline_s:
            flags |= GuardFlag.LATE_INFERENCE
        # Tested before any clip: clip(NaN) is NaN.
        if not np.isfinite(action).all():
            flags |= GuardFlag.ACTION_NOT_FINITE
        elif self.config.choices and not is_choice(action, self.config.choices):
            flags |= GuardFlag.NO_SUCH_CHOICE
        return flags

    def _advance(self, flags: GuardFlag, now: float) -> None:
        """Moves between SOFT_START, RUN, HOLD and ESTOP by the violations of one tick."""
        if self.state is GuardState.ESTOP or self.state < GuardState.ARMED:
            return
        self._unsolved_ticks = self._unsolved_ticks + 1 if flags & GIVEN_UP else 0
        if self._unsolved_ticks > self.config.hold_budget:
            why = "no joints were found" if flags & GuardFlag.IK_UNSOLVED else "the arm would meet itself"
            cause = f"{why} for more than {self.config.hold_budget} targets in a row"
            self._move(GuardState.ESTOP, now, cause)
            return
        if flags & VIOLATIONS:
            self._violating_ticks += 1
            self._clean_ticks = 0
            cause = " and ".join(str(flag.name) for flag in flags & VIOLATIONS)
            if flags & STOPPING:
                self._move(GuardState.ESTOP, now, cause)
            elif self._violating_ticks > self.config.hold_budget:
                cause = f"held for more than {self.config.hold_budget} ticks: {cause}"
                self._move(GuardState.ESTOP, now, cause)
            elif self.state is not GuardState.HOLD:
                self._move(GuardState.HOLD, now, cause)
            return
        self._violating_ticks = 0
        self._clean_ticks += 1
        fading_in = self._clean_ticks <= self.config.soft_start_ticks
        state = GuardState.SOFT_START if fading_in else GuardState.RUN
        if self.state is not state:
            self._move(state, now, "clean tick")

    def _target_of(self, action: npt.NDArray[np.floating]) -> Float64:
        """The hold action, the proposal, or a mixture of both during the soft start; before any limit."""
        target = np.multiply(self._previous, self._keep, out=self._target)
        if self.state is GuardState.SOFT_START:
            target += (action - target) * (self._clean_ticks / (self.config.soft_start_ticks + 1))
        elif self.state is GuardState.RUN:
            target[:] = action
        return target

    def _move(self, state: GuardState, now: float, cause: str) -> None:
        self.transitions.append(Transition(now, self.state, state, cause))
        self.state = state


def observation_flags(
    config: GuardConfig, observation: npt.NDArray[np.floating], observed_at: float, now: float
) -> GuardFlag:
    """The observation's violations alone, so that a policy need not plan on a bad observation.

    An observation from the future counts as stale: its time stamp is invalid.
    """
    flags = GuardFlag.NONE
    if not 0.0 <= now - observed_at <= config.stale_limit_s:
        flags |= GuardFlag.STALE_OBSERVATION
    largest = np.abs(observation).max(initial=0.0)
    if not np.isfinite(largest):
        flags |= GuardFlag.OBSERVATION_NOT_FINITE
    elif largest > config.observation_limit:
        flags |= GuardFlag.OBSERVATION_OUT_OF_RANGE
    return flags


def _limited(values: Float64, low: Float64 | float, high: Float64 | float, flag: GuardFlag) -> GuardFlag:
    """Clips `values` in place; `flag` where one lay outside, or was not finite."""
    if ((values >= low) & (values <= high)).all():
        return GuardFlag.NONE
    np.clip(values, low, high, out=values)
    return flag
