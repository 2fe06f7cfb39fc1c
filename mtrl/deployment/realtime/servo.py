"""The servo: the fast process that owns the guard and alone commands the robot.

The policy proposes over shared memory, the servo decides. It has no threads, touches no file, no lock and no
log, and allocates its arrays before the clock starts; `python -m mtrl.deployment.realtime.servo` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..artefact.manifest import Manifest
from ..guard.guard import BREACHES, OBSERVATION_VIOLATIONS, VIOLATIONS, Guard, GuardFlag, observation_flags
from .processes import ProcessContext, run_child
from .records import (
    CommandField,
    ControlField,
    EpisodeSpec,
    FlightRing,
    ObservationField,
    ProposalField,
    SessionMemory,
)
from .roles import SERVO
from .shared_memory import Seqlock
from .ticker import Ticker, realtime_section

Float64 = npt.NDArray[np.float64]

RECENT = 8
"""Newest observations that a proposal may answer."""
LATE_PERIODS = 1.5
"""Periods of the policy from one observation to the next beyond which the later one is late."""
READ_ATTEMPTS = 8
"""Attempts at a record that is being written, together below 50 microseconds; the next tick tries again."""


class Servo:
    """Decides one command for every observation of one episode, and holds the robot when it must.

    Every tick it looks for an observation and a proposal. A proposal is checked once, when it comes: it must
    answer a recent observation of this episode, newer than the last one that was answered. The robot is held,
    once in a period of the policy, when an observation violates, when none came for the stale limit beyond a
    period, and when an observation has no proposal though the proposal limit has passed since the newest one.
    What the policy could not answer, late observations and bad ones, is not counted against it.
    """

    def __init__(
        self,
        guard: Guard,
        ring: FlightRing,
        memory: SessionMemory,
        episode: int,
        period_s: float,
        servo_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`episode`: its number, from 1; records of others are ignored. `period_s`: of the policy's
        decisions, `servo_s`: of this loop. Clock and sleep are for tests.
        """
        self._guard = guard
        self._ring = ring
        self._observations, self._proposals, self._commands = (
            memory.observations,
            memory.proposals,
            memory.commands,
        )
        self._lateness = memory.lateness
        self._episode = episode
        self._period_s = period_s
        self._clock = clock
        self._ticker = Ticker(servo_s, clock, sleep)
        self._sequences = [self._observations.sequence, self._proposals.sequence]
        self._record = np.zeros(self._observations.width)
        self._recent = np.zeros((RECENT, self._observations.width))
        self._recent[:, ObservationField.TICK] = -1
        self._stamps = np.zeros(RECENT)
        self._proposal = np.zeros(self._proposals.width)
        self._nothing = np.zeros(ring.action_size)
        self._message = np.zeros(self._commands.width)
        self._message[CommandField.EPISODE] = episode
        self._newest = self._answered = -1
        self._bad = self._breached = False
        self._heard_at = self._proposed_at = self._hold_at = 0.0
        self.answered = self.late = self.held = self.wake_ups = 0
        """Observations that were answered, those after the robot's next tick was due, decisions to hold, and
        ticks of this loop."""

    @property
    def state(self) -> int:
        """The guard's state."""
        return int(self._guard.state)

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs until the robot ends the episode; `each_tick` may raise to end it."""
        self._ticker.start(self._clock())
        while not self._tick():
            each_tick()

    def _tick(self) -> bool:
        """One tick of the servo's clock; whether the episode is over."""
        scheduled = self._ticker.wait()
        late = self._clock() - scheduled
        if self.wake_ups < len(self._lateness):
            self._lateness[self.wake_ups] = late
        self.wake_ups += 1
        if late > self._ticker.period_s:
            # what was missed is not made up for: the next tick stays on the schedule
            self._ticker.scheduled += late // self._ticker.period_s * self._ticker.period_s
        if self._receive_observation() and self._record[ObservationField.ENDED]:
            return True
        if self._newest < 0:
            return False
        proposed = self._receive_proposal()
        now = self._clock()
        if proposed:
            start = len(ProposalField)
            self._decide(
                int(self._proposal[ProposalField.TICK]),
                self._proposal[start : start + self._ring.action_size],
                now,
            )
        elif self._must_hold(now):
            self._proposal[ProposalField.INFERENCE_S] = self._proposal[ProposalField.PLANNED] = 0.0
            self._decide(self._newest, self._nothing, now)
        return False

    def _receive_observation(self) -> bool:
        stamp = self._receive(0, self._observations, self._record)
        if stamp is None or self._record[ObservationField.EPISODE] != self._episode:
            return False
        now = self._clock()
        if self._newest < 0:
            self._proposed_at = self._heard_at = now
            self._guard.arm(stamp)
        if now - self._heard_at > LATE_PERIODS * self._period_s:
            self._proposed_at = min(now, self._proposed_at + now - self._heard_at - self._period_s)
        self._heard_at = now
        self._newest = int(self._record[ObservationField.TICK])
        self._recent[self._newest % RECENT] = self._record
        self._stamps[self._newest % RECENT] = stamp
        self._bad = bool(self._observation_flags(now))
        self._breached = bool(int(self._record[ObservationField.BREACH]) & BREACHES)
        return True

    def _observation_flags(self, now: float) -> GuardFlag:
        """Violations of the newest observation."""
        place = self._newest % RECENT
        state = self._recent[place, len(ObservationField) :][: self._ring.state_size]
        return observation_flags(self._guard.config, state, float(self._stamps[place]), now)

    def _receive_proposal(self) -> bool:
        """Whether there is a new proposal in sequence."""
        stamp = self._receive(1, self._proposals, self._proposal)
        if stamp is None or self._proposal[ProposalField.EPISODE] != self._episode:
            return False
        # whatever the policy says of its clock, it cannot put off the limit of its next proposal
        self._proposed_at = min(stamp, self._clock())
        tick = self._proposal[ProposalField.TICK]
        return bool(tick > self._answered and tick in self._recent[:, ObservationField.TICK])

    def _receive(self, which: int, source: Seqlock, out: Float64) -> float | None:
        """The stamp of a new record, copied into `out`; None without one."""
        sequence = source.sequence
        if sequence == self._sequences[which]:
            return None
        stamp = source.read(out, READ_ATTEMPTS)
        if stamp is not None:
            self._sequences[which] = sequence
        return stamp

    def _must_hold(self, now: float) -> bool:
        if now < self._hold_at:
            return False
        limits = self._guard.config
        waited = now - self._proposed_at
        lost = self._answered != self._newest and not waited <= limits.proposal_limit_s
        silent = now - self._heard_at > self._period_s + limits.stale_limit_s
        return lost or self._breached or ((silent or self._bad) and bool(self._observation_flags(now)))

    def _decide(self, tick: int, action: Float64, now: float) -> None:
        """Checks a proposal for the observation of this tick, commands what comes of it and records both."""
        place = tick % RECENT
        record, stamp = self._recent[place], float(self._stamps[place])
        state = record[len(ObservationField) :][: self._ring.state_size]
        inference_s, proposed_at = float(self._proposal[ProposalField.INFERENCE_S]), self._proposed_at
        breach = int(record[ObservationField.BREACH])
        guarded = self._guard.check(state, stamp, action, inference_s, now, proposed_at, breach)
        self._message[CommandField.TICK] = tick
        self._message[len(CommandField) :][: self._ring.action_size] = guarded.action
        self._commands.write(now, self._message)
        sent = self._clock()
        scheduled = float(record[ObservationField.SCHEDULED])
        if guarded.flags & VIOLATIONS:
            self.held += 1
            since = self._hold_at if now - self._hold_at < self._period_s else now
            self._hold_at = since + self._period_s
        if guarded.flags & OBSERVATION_VIOLATIONS:
            self._proposed_at = now
        if tick == self._newest:
            self._bad = self._breached = False
        if tick > self._answered:
            self.answered += 1
            self.late += sent > scheduled + self._period_s
            self._answered = tick
        numbers = (
            tick, scheduled, stamp, now, proposed_at, sent,
            inference_s, self._proposal[ProposalField.PLANNED], guarded.flags, guarded.state,
            breach,
        )  # fmt: skip
        joints = record[len(ObservationField) + self._ring.state_size :][: self._ring.joint_words]
        self._ring.append(numbers, state, action, guarded.action, joints)


def main(context: ProcessContext) -> None:
    """Runs every episode of the session."""
    manifest = Manifest.from_json(context.spec.manifest)
    for number, episode in enumerate(context.spec.episodes, start=1):
        run_episode(context, manifest, number, episode)


def run_episode(context: ProcessContext, manifest: Manifest, number: int, episode: EpisodeSpec) -> None:
    """Waits for the robot, decides its commands, and counts."""
    entry = manifest.task(episode.task)
    memory, robot, control = context.memory, context.spec.robot, context.memory.control
    words = context.spec.joint_words(entry.action_size)
    ring = FlightRing(memory.ring, entry.state_size, entry.action_size, words)
    context.wait_for(number, ControlField.GO, ControlField.ROBOT_READY)
    servo = Servo(Guard(episode.guard), ring, memory, number, 1.0 / entry.rate_hz, 1.0 / robot.servo_hz)

    def publish() -> None:
        control[ControlField.ROWS] = ring.count
        control[ControlField.ANSWERED] = servo.answered
        control[ControlField.LATE] = servo.late
        control[ControlField.HELD] = servo.held
        control[ControlField.WAKE_UPS] = servo.wake_ups
        control[ControlField.STATE] = servo.state

    def each_tick() -> None:
        publish()
        context.raise_if_ended()

    with realtime_section(SERVO.priority if robot.fifo else 0, alone=True) as granted:
        control[ControlField.SERVO_FIFO] = granted
        publish()
        control[ControlField.SERVO_READY] = number
        servo.run(each_tick)
    publish()
    control[ControlField.SERVO_DONE] = number


if __name__ == "__main__":
    run_child(main)
