"""The process of the policy and its loop: newest observation, plan, proposal.

The loop touches no file, no lock and no log, and decides nothing: the servo does. `python -m
mtrl.deployment.realtime.policy_loop` runs it.
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
from ..guard.guard import observation_flags
from ..guard.limits import GuardConfig
from .controller import ChunkController
from .processes import ProcessContext, run_child
from .records import ControlField, EpisodeSpec, ObservationField, ProposalField, SessionMemory, image_stamp
from .roles import POLICY
from .shared_memory import Seqlock
from .ticker import Ticker, realtime_section

POLL_S = 0.0002
"""Pause between polls for an observation that is due."""
WARM_UP_CALLS = 50
"""Inferences before the clock starts, so that the first tick pays for no lazy initialisation."""


class PolicyLoop:
    """Answers every observation of one episode that does not violate the guard's limits with one proposal.

    The loop sleeps until the robot's next tick is due, then polls for its observation every 0.2 ms.
    """

    def __init__(
        self,
        controller: ChunkController,
        limits: GuardConfig,
        memory: SessionMemory,
        episode: int,
        sizes: tuple[int, int],
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`episode`: number of the episode, from 1; other episodes' observations are ignored. `sizes`: of the
        task's own state and action.
        """
        self._ticker = Ticker(period_s, clock, sleep)
        self._controller = controller
        self._limits = limits
        self._observations = memory.observations
        self._proposals = memory.proposals
        self._control = memory.control
        self._episode = episode
        self._clock = clock
        self._sleep = sleep
        self._sequence = self._observations.sequence
        self._record = np.zeros(self._observations.width)
        state_size, action_size = sizes
        self._state = self._record[len(ObservationField) :][:state_size]
        self._stamp = 0.0
        self._tick = -1
        self._held = 0
        self._message = np.zeros(self._proposals.width)
        self._message[ProposalField.EPISODE] = episode
        self._proposal = self._message[len(ProposalField) :][:action_size]
        self._images = memory.images if controller.image.size else None
        self._image = np.zeros(memory.images.width)

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs until the robot ends the episode; `each_tick`, called at every poll, may raise to end it."""
        while True:
            while not self._receive():
                each_tick()
                self._sleep(POLL_S)
            if self._record[ObservationField.ENDED]:
                return
            self._answer()
            each_tick()
            self._ticker.wait()

    def _receive(self) -> bool:
        sequence = self._observations.sequence
        if sequence == self._sequence:
            return False
        stamp = self._observations.read(self._record)
        if stamp is None or self._record[ObservationField.EPISODE] != self._episode:
            return False
        # The writer may have published between the two reads above; its record is answered once.
        self._sequence = sequence
        tick = int(self._record[ObservationField.TICK])
        new = tick != self._tick
        self._tick, self._stamp = tick, stamp
        return new

    def _answer(self) -> None:
        read = self._clock()
        # A robot whose stamps depart from its schedule must not make this loop run faster.
        scheduled = float(self._record[ObservationField.SCHEDULED])
        self._ticker.scheduled = max(scheduled, self._stamp - self._ticker.period_s)
        held = int(self._control[ControlField.HELD])
        if held != self._held:
            self._held = held
            self._controller.forget_plan()
        if observation_flags(self._limits, self._state, self._stamp, read):
            return
        controller, tick, message = self._controller, self._tick, self._message
        if self._images is not None and not self._receive_image(self._images):
            return
        controller.observe(self._state)
        planned = controller.needs_plan(tick)
        begun = self._clock()
        if planned:
            controller.plan(tick)
        ready = self._clock()
        controller.action(tick, self._proposal)
        message[ProposalField.TICK] = tick
        message[ProposalField.INFERENCE_S] = ready - begun if planned else 0.0
        message[ProposalField.PLANNED] = planned
        self._proposals.write(self._clock(), message)

    def _receive_image(self, images: Seqlock) -> bool:
        """Takes the image of this observation; not where the robot has gone on to the next one."""
        stamp = images.read(self._image)
        if stamp != image_stamp(self._episode, self._tick):
            return False
        self._controller.image_words[:] = self._image[: len(self._controller.image_words)]
        return True


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
    """Waits for the robot and answers its observations."""
    entry = policy.manifest.task(episode.task)
    control = context.memory.control
    loop = PolicyLoop(
        ChunkController(policy, entry, generator_for(context.spec.seed, entry.name, episode.start)),
        episode.guard,
        context.memory,
        number,
        (entry.state_size, entry.action_size),
        1.0 / entry.rate_hz,
    )
    context.wait_for(number, ControlField.GO, ControlField.ROBOT_READY)
    with realtime_section(POLICY.priority if context.spec.robot.fifo else 0) as granted:
        control[ControlField.POLICY_FIFO] = granted
        control[ControlField.POLICY_READY] = number
        loop.run(context.raise_if_ended)
    control[ControlField.POLICY_DONE] = number


if __name__ == "__main__":
    run_child(main)
