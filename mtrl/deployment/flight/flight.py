"""The record of one episode, and the guard run again on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..artefact.manifest import TaskEntry
from ..guard.guard import Guard, Transition
from ..guard.limits import GuardConfig
from ..realtime.records import Column, EpisodeSpec, FlightRing, SessionSpec

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Flight:
    """The record of one episode; row n of every array is tick n of the policy's loop."""

    task: str
    """Full name of the task."""
    artefact: str
    """Root hash of the artefact."""
    guard: GuardConfig
    """Limits in force."""
    numbers: Float64
    """Shape [N, 11]; the columns of `records.Column`."""
    observation: Float64
    """Native states, [N, D]."""
    proposal: Float64
    """The policy's actions, [N, A]; may hold non-finite values."""
    command: Float64
    """The guard's commands, [N, A]."""
    clock_ns: int = 0
    """Wall-clock time of 0 on time.monotonic, in nanoseconds since 1970; add it to a time of `numbers`."""
    ending: str = ""
    """What ended the episode; empty for a log that its writer did not finish."""
    mode: str = "armed"
    """What was done to the robot, one of `MODES`."""
    joints: Float64 = field(default_factory=lambda: np.zeros((0, 0)))
    """What a robot of joints adds to every observation, [N, B], as `Jointed` says; B is 0 for others."""
    names: tuple[str, ...] = ()
    """Names of the joints."""
    site: str = ""
    """The robot of joints with the limits in force, JSON of `Site`."""
    model: str = ""
    """The MJCF model of its kinematics."""
    rate_hz: float = 0.0
    """Decisions per second."""

    @staticmethod
    def of(ring: FlightRing, count: int, task: str, artefact: str, guard: GuardConfig) -> Flight:
        """A copy of a ring's first `count` rows."""
        empty = (ring.numbers[:0], ring.observation[:0], ring.proposal[:0], ring.command[:0])
        return Flight(task, artefact, guard, *empty).with_rows(ring, 0, count)

    @staticmethod
    def begun(spec: SessionSpec, episode: EpisodeSpec, entry: TaskEntry) -> Flight:
        """What is known of an episode before its first tick; it has no rows."""
        action = np.zeros((0, entry.action_size))
        return Flight(
            episode.task,
            spec.artefact,
            episode.guard,
            np.zeros((0, len(Column))),
            np.zeros((0, entry.state_size)),
            action,
            action,
            mode=spec.mode,
            joints=np.zeros((0, spec.joint_words(entry.action_size))),
            names=spec.joints,
            site=spec.site,
            model=spec.model,
            rate_hz=entry.rate_hz,
        )

    def with_rows(self, ring: FlightRing, first: int, end: int) -> Flight:
        """The same flight with a copy of these rows of the ring as its only ones."""
        rows = slice(first, end)
        return dataclasses.replace(
            self,
            numbers=ring.numbers[rows].copy(),
            observation=ring.observation[rows].copy(),
            proposal=ring.proposal[rows].copy(),
            command=ring.command[rows].copy(),
            joints=ring.joints[rows].copy(),
        )

    def column(self, column: Column) -> Float64:
        """One number per tick, [N]."""
        return self.numbers[:, column]

    @cached_property
    def transitions(self) -> tuple[Transition, ...]:
        """Changes of the guard's state that a replay finds, with their causes."""
        return replay(self)[1]


class GuardReplay:
    """A guard that is given recorded ticks, in order."""

    def __init__(self, config: GuardConfig) -> None:
        """`config`: the limits that were in force."""
        self._guard = Guard(config)
        self.transitions = self._guard.transitions
        """Changes of state so far."""

    def command(self, numbers: Float64, observation: Float64, proposal: Float64) -> Float64:
        """The command [A] of one row, a buffer that the next row overwrites."""
        if not self.transitions:
            self._guard.arm(float(numbers[Column.OBSERVED]))
        return self._guard.check(
            observation,
            float(numbers[Column.OBSERVED]),
            proposal,
            float(numbers[Column.INFERENCE_S]),
            float(numbers[Column.READ]),
            float(numbers[Column.INFERRED]),
            int(numbers[Column.BREACH]),
        ).action


def replay(flight: Flight) -> tuple[Float64, tuple[Transition, ...]]:
    """Runs the guard again on the recorded observations and proposals.

    Returns commands [N, A], which are bit-equal to `flight.command`, and the changes of state.
    """
    guard = GuardReplay(flight.guard)
    commands = np.zeros_like(flight.command)
    for row, recorded in enumerate(zip(flight.numbers, flight.observation, flight.proposal, strict=True)):
        commands[row] = guard.command(*recorded)
    return commands, tuple(guard.transitions)
