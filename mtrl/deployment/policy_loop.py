"""The policy's loop: newest observation, plan, guard, command, record; no file, no lock, no log."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from .controller import ChunkController
from .flight_ring import FlightRing
from .guard import OBSERVATION_VIOLATIONS, Guard, GuardFlag, GuardState
from .shared_memory import Seqlock
from .ticker import Ticker
from .wire import Seen, Told

ARM_CAUSES = ("artefact verified", "first observation of the episode", "deploy was asked for")
"""Why a guard moves from INIT to ARMED when a session starts an episode."""

POLL_S = 0.0002
"""Pause between looks for an observation that is due."""


class PolicyLoop:
    """Answers every observation of one episode with one guarded command.

    The loop sleeps until the robot's next tick is due, then looks for its observation every 0.2 ms. A
    command meets its deadline when it stands in shared memory before the robot's next tick is due, one
    period after the tick it answers; an observation that was overwritten unanswered is a miss too. When
    none comes for longer than the stale limit beyond that, the loop streams hold commands instead.
    """

    def __init__(
        self,
        controller: ChunkController,
        guard: Guard,
        ring: FlightRing,
        observations: Seqlock,
        commands: Seqlock,
        episode: int,
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`episode`: number of the episode, from 1; other episodes' observations are ignored."""
        self.ticker = Ticker(period_s, 0, clock, sleep)
        self._controller = controller
        self._guard = guard
        self._ring = ring
        self._observations = observations
        self._commands = commands
        self._episode = episode
        self._clock = clock
        self._sleep = sleep
        self._sequence = observations.sequence
        self._record = np.zeros(observations.width)
        self._state = self._record[len(Seen) : len(Seen) + ring.state_size]
        self._stamp = 0.0
        self._tick = -1
        self._message = np.zeros(commands.width)
        self._message[Told.EPISODE] = episode
        self._proposal = np.zeros(ring.action_size)

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs until the robot ends the episode; `each_tick` may raise to end it."""
        while not self._receive():
            each_tick()
            self._sleep(POLL_S)
        self._guard.arm(self._stamp, ARM_CAUSES)
        while not self._record[Seen.ENDED]:
            self._answer()
            each_tick()
            self._await_observation()

    def _await_observation(self) -> None:
        """Returns with a new observation, or with the old one when it is overdue by the stale limit."""
        due = self.ticker.wait()
        overdue = due + self._guard.config.stale_limit_s
        while not self._receive():
            if self._clock() > overdue:
                return
            self._sleep(POLL_S)

    def _receive(self) -> bool:
        sequence = self._observations.sequence
        if sequence == self._sequence:
            return False
        stamp = self._observations.read(self._record)
        if stamp is None or self._record[Seen.EPISODE] != self._episode:
            return False
        # The writer may have published between the two looks above; its record is answered once.
        self._sequence = sequence
        new = stamp != self._stamp
        self._stamp = stamp
        return new

    def _answer(self) -> None:
        read = self._clock()
        tick = int(self._record[Seen.TICK])
        fresh = tick != self._tick
        skipped = max(0, tick - self._tick - 1)
        if fresh:
            # A robot whose stamps run away from its schedule must not make this loop race after it.
            scheduled = float(self._record[Seen.SCHEDULED])
            self.ticker.realign(max(scheduled, self._stamp - self.ticker.period_s))
        inference_s, planned = 0.0, False
        self._proposal[:] = 0
        acceptable = not self._guard.observation_flags(self._state, self._stamp, read)
        if acceptable and self._guard.state is not GuardState.ESTOP:
            inference_s, planned = self._propose(tick)
        inferred = self._clock()
        guarded = self._guard.check(self._state, self._stamp, self._proposal, inference_s, read)
        if guarded.flags & (OBSERVATION_VIOLATIONS | GuardFlag.LATE_INFERENCE):
            self._controller.forget_plan()
        self._message[Told.TICK] = tick
        self._message[len(Told) : len(Told) + self._ring.action_size] = guarded.action
        self._commands.write(self._clock(), self._message)
        sent = self._clock()
        if fresh:
            self.ticker.finish(sent, skipped)
        self._tick = tick
        numbers = (
            tick, self._record[Seen.SCHEDULED], self._stamp, read, inferred, sent, inference_s, planned,
            guarded.flags, guarded.state,
        )  # fmt: skip
        self._ring.append(numbers, self._state, self._proposal, guarded.action)

    def _propose(self, tick: int) -> tuple[float, bool]:
        """Writes the proposed action; returns the seconds that inference took and whether there was one."""
        controller = self._controller
        controller.observe(self._state)
        if not controller.needs_plan(tick):
            controller.action(tick, self._proposal)
            return 0.0, False
        begun = self._clock()
        controller.plan(tick)
        elapsed = self._clock() - begun
        controller.action(tick, self._proposal)
        return elapsed, True
