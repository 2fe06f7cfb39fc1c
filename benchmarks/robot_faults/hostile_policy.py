"""A policy and a robot that lie, stop and go wild, against the servo under a fake clock, and the joints."""

from __future__ import annotations

import random

import numpy as np

from mtrl.deployment import Guard, GuardConfig
from mtrl.deployment.realtime.records import (
    CommandField,
    FlightRing,
    ObservationField,
    ProposalField,
    SessionMemory,
)
from mtrl.deployment.realtime.servo import Servo

PERIOD_S, SERVO_S = 0.0125, 0.00625
EPISODE = 2000
WILD = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1.0, -1.0, 0.0, 1e-300)


class Hostile:
    """Writes an observation and a proposal each period of one episode, most of them bad in some way."""

    def __init__(self, seed: int) -> None:
        self.now = 100.0
        self.memory = SessionMemory.create(4, 3, 1, 1, b"")
        self._draws = random.Random(seed)
        self._numbers = np.random.default_rng(seed).standard_normal((EPISODE + 50, 7))
        self._tick = -1
        self._next = self.now
        self._observation = np.zeros(self.memory.observations.width)
        self._proposal = np.zeros(self.memory.proposals.width)

    def clock(self) -> float:
        """The fake time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes; what is due is written."""
        self.now += seconds * (1.0 if self._draws.random() < 0.99 else 5.0)
        if self.now < self._next:
            return
        self._next += PERIOD_S
        self._tick += 1
        draws, record, proposal = self._draws, self._observation, self._proposal
        numbers = self._numbers[self._tick]
        record[:] = 0.0
        record[ObservationField.EPISODE] = 1
        record[ObservationField.TICK] = self._tick
        record[ObservationField.SCHEDULED] = self.now
        record[ObservationField.ENDED] = self._tick >= EPISODE
        record[len(ObservationField) :] = numbers[:4]
        kind = draws.random()
        if kind < 0.02:
            record[len(ObservationField) + draws.randrange(4)] = draws.choice(WILD)
        age = 0.0 if kind < 0.95 else draws.choice((-1.0, 0.03, 0.1, 1e9))
        if kind < 0.98 or self._tick >= EPISODE:
            self.memory.observations.write(self.now - age, record)
        proposal[:] = 0.0
        proposal[ProposalField.EPISODE] = 1
        proposal[ProposalField.TICK] = self._tick - draws.choice((0, 0, 0, 0, 0, 0, 1, 3, -5))
        proposal[len(ProposalField) :] = numbers[4:] * 10.0 ** draws.randrange(-3, 4)
        kind = draws.random()
        if kind < 0.3:
            proposal[len(ProposalField) :] = draws.choices(WILD[3:], k=3)
        elif kind < 0.3005:
            proposal[len(ProposalField) + draws.randrange(3)] = draws.choice(WILD)
        elif kind < 0.32:
            proposal[draws.randrange(len(ProposalField))] = draws.choice(WILD)
        if draws.random() < 0.95:
            self.memory.proposals.write(self.now + (0.0 if kind < 0.98 else draws.choice(WILD)), proposal)


def violations_of_guard(ticks: int) -> int:
    """Commands that are not finite, beyond the limit, or changed too fast, of `ticks` decisions or more."""
    found = decided = episode = 0
    while decided < ticks:
        world = Hostile(episode)
        draws = np.random.default_rng(episode)
        limits = GuardConfig(
            action_size=3,
            hold=("zero", "last", "zero"),
            action_limit=float(draws.uniform(0.1, 1.0)),
            rate_limit=float(draws.uniform(0.01, 2.0)),
            soft_start_ticks=int(draws.integers(0, 20)),
            hold_budget=100_000,
            proposal_limit_s=3 * PERIOD_S,
            observation_limit=100.0,
        )
        ring = FlightRing(world.memory.ring, 4, 3)
        guard = Guard(limits)
        servo = Servo(guard, ring, world.memory, 1, PERIOD_S, SERVO_S, world.clock, world.sleep)
        before, record = np.zeros(3), np.zeros(world.memory.commands.width)
        seen = 0

        def look() -> None:
            nonlocal seen, found
            sequence = world.memory.commands.sequence  # noqa: B023 - called within this turn of the loop
            if sequence == seen:
                return
            seen = sequence
            world.memory.commands.read(record)  # noqa: B023
            command = record[len(CommandField) :]  # noqa: B023
            bad = (
                not np.isfinite(command).all()
                or np.abs(command).max() > limits.action_limit  # noqa: B023
                or np.abs(command - before).max() > limits.rate_limit * (1 + 1e-12)  # noqa: B023
            )
            found += int(bad)
            before[:] = command  # noqa: B023

        servo.run(look)
        decided += servo.answered
        episode += 1
    return found


def violations_of_joints(ticks: int) -> int:
    """Joint positions beyond a limit of position, velocity or acceleration, of `ticks` decisions."""
    from mtrl import registry
    from mtrl.deployment.artefact.joints import Joint
    from mtrl.deployment.robots.joint_environment import JointEnvironment
    from mtrl.deployment.robots.joints import Reading
    from mtrl.deployment.robots.site import Binding, Site

    class Perfect:
        """At once where it is commanded."""

        def __init__(self) -> None:
            self.reading = Reading(2, 0)
            self.reading.heard[:] = 0.0
            self.dropped = 0
            self.last = np.zeros(2)

        def begin(self, start: int) -> None:
            """It is there."""

        def read(self) -> None:
            """It is known."""

        def command(self, target: np.ndarray) -> None:
            """Moves."""
            self.last = target.copy()
            self.reading.position[:] = target

        def hold(self) -> None:
            """Stays."""

        def close(self) -> None:
            """Nothing is held."""

    task = registry.task("point/obstacle")
    joints = (
        Joint("a", -1.0, 1.0, 2.0, acceleration=8.0),
        Joint("b", -0.5, 2.0, 0.7, acceleration=3.0),
    )
    binding = Binding(
        ("position.a", "position.b", "velocity.a", "velocity.b"), ("0.9 * shift.a", "3 * position.b")
    )
    site = Site(joints, {"point": binding})
    robot = Perfect()
    environment = JointEnvironment(task, site, robot, None)
    out = {"state": np.zeros(task.observation.state or 0, dtype=np.float32)}
    environment.reset(0, out)
    draws = np.random.default_rng(0)
    low, high, speed, growth = np.array([[j.low, j.high, j.velocity, j.acceleration] for j in joints]).T
    found, position, velocity = 0, robot.last.copy(), np.zeros(2)
    action = np.zeros(2, dtype=np.float32)
    for tick in range(ticks):
        if tick % int(draws.integers(1, 40)) == 0:
            action = draws.uniform(-1, 1, 2).round(int(draws.integers(0, 3))).astype(np.float32)
        environment.step(action, out)
        moved = (robot.last - position) * task.rate_hz
        changed = np.abs(moved - velocity) * task.rate_hz
        found += bool(
            ((robot.last < low) | (robot.last > high)).any()
            or (np.abs(moved) > speed * (1 + 1e-9)).any()
            or (changed > growth * (1 + 1e-6)).any()
        )
        position, velocity = robot.last, moved
    return found
