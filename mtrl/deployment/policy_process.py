"""The process of the policy: `python -m mtrl.deployment.policy_process`."""

from __future__ import annotations

from pathlib import Path

from mtrl.rollout import generator_for

from .artefact import ArtefactPolicy
from .controller import ChunkController
from .flight_ring import FlightRing
from .guard import Guard
from .policy_loop import PolicyLoop
from .process import Link, run_child
from .ticker import undisturbed
from .wire import EpisodeSpec, Word

PRIORITY = 40
"""SCHED_FIFO priority: above the simulated robot's."""

WARM_UP_CALLS = 50
"""Inferences before the clock starts, so that the first tick pays for no lazy initialisation."""


def main(link: Link) -> None:
    """Loads the artefact once and runs every episode of the session."""
    policy = ArtefactPolicy(Path(link.spec.artefact))
    zeros = policy.manifest
    warm_up = ChunkController(policy, zeros.tasks[0], generator_for(0, zeros.tasks[0].name, 0))
    for call in range(WARM_UP_CALLS):
        warm_up.plan(call)
    link.tell(Word.POLICY_LOADED, 1)
    for number, episode in enumerate(link.spec.episodes, start=1):
        run_episode(link, policy, number, episode)


def run_episode(link: Link, policy: ArtefactPolicy, number: int, episode: EpisodeSpec) -> None:
    """Waits for the robot, answers its observations, and reports how well time was kept."""
    entry = policy.manifest.task(episode.task)
    wire, robot = link.wire, link.spec.robot
    controller = ChunkController(policy, entry, generator_for(link.spec.seed, entry.name, episode.start))
    ring = FlightRing(wire.ring, entry.state_size, entry.action_size)
    loop = PolicyLoop(
        controller,
        Guard(robot.guard(policy.manifest, entry)),
        ring,
        wire.observations,
        wire.commands,
        number,
        1.0 / entry.rate_hz,
    )
    link.wait_for(lambda: link.told(Word.GO) >= number and link.told(Word.ROBOT_READY) >= number)
    with undisturbed(PRIORITY if robot.fifo else 0) as granted:
        link.tell(Word.POLICY_FIFO, granted)
        link.tell(Word.POLICY_READY, number)

        def each_tick() -> None:
            link.tell(Word.ROWS, ring.count)
            link.raise_if_ended()

        loop.run(each_tick)
    statistics = loop.ticker.statistics()
    link.tell(Word.ROWS, ring.count)
    link.tell(Word.ANSWERED, statistics.ticks - statistics.skipped)
    link.tell(Word.LATE, statistics.misses - statistics.skipped)
    link.tell(Word.POLICY_DONE, number)


if __name__ == "__main__":
    run_child(main)
