"""A clock that the test sets, and what other processes write while the process under test sleeps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtrl.deployment.realtime.records import ObservationField, ProposalField, SessionMemory

PERIOD = 0.02
STATE = [0.0, 0.0, 0.03, -0.05]
ACTION = [0.3, -0.5]


class Scripted:
    """Events at given times, in order; an event is called with the memory when its time has come."""

    def __init__(self, script: list[tuple[float, Callable[[Scripted], None]]]) -> None:
        self.now = 0.0
        self.memory = SessionMemory.create(4, 2, 400, 4000, b"")
        self.oversleep = 0.0
        """Time that the next sleep takes too long."""
        self._script = sorted(script, key=lambda event: event[0])

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._script and self._script[0][0] <= self.now + 1e-12:
            at, event = self._script.pop(0)
            after, self.now = max(self.now, at), at
            event(self)
            self.now = after
        self.now, self.oversleep = self.now + self.oversleep, 0.0


def observe(
    tick: int,
    state: list[float] = STATE,
    *,
    ended: bool = False,
    age: float = 0.0,
    breach: int = 0,
    episode: int = 1,
) -> Callable[[Scripted], None]:
    """The robot publishes an observation of this age."""

    def event(world: Scripted) -> None:
        record = np.array([*np.zeros(len(ObservationField)), *state])
        record[ObservationField.EPISODE] = episode
        record[ObservationField.TICK] = tick
        record[ObservationField.SCHEDULED] = world.now
        record[ObservationField.ENDED] = ended
        record[ObservationField.BREACH] = breach
        world.memory.observations.write(world.now - age, record)

    return event


def propose(
    tick: float,
    action: list[float] = ACTION,
    *,
    took: float = 0.0,
    ahead: float = 0.0,
    episode: int = 1,
) -> Callable[[Scripted], None]:
    """The policy proposes an action for a tick, stamped `ahead` of the clock."""

    def event(world: Scripted) -> None:
        record = np.array([*np.zeros(len(ProposalField)), *action])
        record[ProposalField.EPISODE] = episode
        record[ProposalField.TICK] = tick
        record[ProposalField.INFERENCE_S] = took
        world.memory.proposals.write(world.now + ahead, record)

    return event
