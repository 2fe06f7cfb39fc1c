"""The process of the policy and its loop: newest observation, plan, guard, command, record.

The loop touches no file, no lock and no log; `python -m mtrl.deployment.realtime.policy_loop` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtrl.rollout import generator_for

from ..artefact.contents import Artefact
from ..artefact.manifest import Manifest
from ..artefact.policy import ArtefactPolicy
from ..guard.guard import OBSERVATION_VIOLATIONS, Guard, GuardFlag, GuardState
from .controller import ChunkController
from .processes import ProcessContext, run_child
from .records import CommandField, ControlField, EpisodeSpec, FlightRing, ObservationField
from .shared_memory import Seqlock
from .ticker import Ticker, realtime_section

PRIORITY = 40
"""SCHED_FIFO priority: above the simulated robot's."""
POLL_S = 0.0002
"""Pause between polls for an observation that is due."""
WARM_UP_CALLS = 50
"""Inferences before the clock starts, so that the first tick pays for no lazy initialisation."""


class PolicyLoop:
    """Answers every observation of one episode with one guarded command.

    The loop sleeps until the robot's next tick is due, then polls for its observation every 0.2 ms. A
    command meets its deadline when it is in shared memory before the robot's next tick is due, one
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
        self.ticker = Ticker(period_s, clock, sleep)
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
        self._state = self._record[len(ObservationField) :][: ring.state_size]
        self._stamp = 0.0
        self._tick = -1
        self._message = np.zeros(commands.width)
        self._message[CommandField.EPISODE] = episode
        self._proposal = np.zeros(ring.action_size)

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs until the robot ends the episode; `each_tick` may raise to end it."""
        while not self._receive():
            each_tick()
            self._sleep(POLL_S)
        self._guard.arm(self._stamp)
        while not self._record[ObservationField.ENDED]:
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
        if stamp is None or self._record[ObservationField.EPISODE] != self._episode:
            return False
        # The writer may have published between the two reads above; its record is answered once.
        self._sequence = sequence
        new = stamp != self._stamp
        self._stamp = stamp
        return new

    def _answer(self) -> None:
        read = self._clock()
        tick = int(self._record[ObservationField.TICK])
        fresh = tick != self._tick
        skipped = max(0, tick - self._tick - 1)
        if fresh:
            # A robot whose stamps depart from its schedule must not make this loop run faster.
            scheduled = float(self._record[ObservationField.SCHEDULED])
            self.ticker.scheduled = max(scheduled, self._stamp - self.ticker.period_s)
        inference_s, planned = 0.0, False
        self._proposal[:] = 0
        acceptable = not self._guard.observation_flags(self._state, self._stamp, read)
        if acceptable and self._guard.state is not GuardState.ESTOP:
            inference_s, planned = self._propose(tick)
        inferred = self._clock()
        guarded = self._guard.check(self._state, self._stamp, self._proposal, inference_s, read)
        if guarded.flags & (OBSERVATION_VIOLATIONS | GuardFlag.LATE_INFERENCE):
            self._controller.forget_plan()
        self._message[CommandField.TICK] = tick
        self._message[len(CommandField) :][: self._ring.action_size] = guarded.action
        self._commands.write(self._clock(), self._message)
        sent = self._clock()
        if fresh:
            self.ticker.finish(sent, skipped)
        self._tick = tick
        numbers = (
            tick, self._record[ObservationField.SCHEDULED], self._stamp, read, inferred, sent,
            inference_s, planned, guarded.flags, guarded.state,
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


def main(context: ProcessContext) -> None:
    """Loads the artefact once and runs every episode of the session."""
    graph = context.memory.graph.load(context.spec.graph_bytes)
    manifest = Manifest.from_json(context.spec.manifest)
    policy = ArtefactPolicy(Artefact(Path(), "", manifest, graph))
    first = policy.manifest.tasks[0]
    warm_up = ChunkController(policy, first, generator_for(0, first.name, 0))
    for call in range(WARM_UP_CALLS):
        warm_up.plan(call)
    context.memory.control[ControlField.POLICY_LOADED] = len(context.spec.episodes)
    for number, episode in enumerate(context.spec.episodes, start=1):
        run_episode(context, policy, number, episode)


def run_episode(context: ProcessContext, policy: ArtefactPolicy, number: int, episode: EpisodeSpec) -> None:
    """Waits for the robot, answers its observations, and counts the answers and the late ones."""
    entry = policy.manifest.task(episode.task)
    memory, robot, control = context.memory, context.spec.robot, context.memory.control
    ring = FlightRing(memory.ring, entry.state_size, entry.action_size)
    loop = PolicyLoop(
        ChunkController(policy, entry, generator_for(context.spec.seed, entry.name, episode.start)),
        Guard(episode.guard),
        ring,
        memory.observations,
        memory.commands,
        number,
        1.0 / entry.rate_hz,
    )
    context.wait_for(number, ControlField.GO, ControlField.ROBOT_READY)
    with realtime_section(PRIORITY if robot.fifo else 0) as granted:
        control[ControlField.POLICY_FIFO] = granted
        control[ControlField.ROWS] = 0
        control[ControlField.POLICY_READY] = number

        def each_tick() -> None:
            control[ControlField.ROWS] = ring.count
            context.raise_if_ended()

        loop.run(each_tick)
    control[ControlField.ROWS] = ring.count
    control[ControlField.ANSWERED] = loop.ticker.ticks - loop.ticker.skipped
    control[ControlField.LATE] = loop.ticker.misses - loop.ticker.skipped
    control[ControlField.POLICY_DONE] = number


if __name__ == "__main__":
    run_child(main)
