"""The layout of every record that the processes of a deployment share, and what they are started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ..guard.limits import RobotConfig
from .shared_memory import Seqlock, SharedBlock


class ControlField(IntEnum):
    """Integers of the control block, each with one writer. Episodes count from 1, so 0 is "none yet"."""

    STOP = 0
    """Session: 1 ends both processes."""
    GO = 1
    """Session: the newest episode that may start."""
    ROBOT_READY = 2
    """Robot: the newest episode whose initial state is set up."""
    POLICY_READY = 3
    """Policy: the newest episode that it is ready for."""
    ROBOT_DONE = 4
    """Robot: the newest episode that ended."""
    POLICY_DONE = 5
    """Policy: the newest episode whose last tick is recorded."""
    ROBOT_FIFO = 6
    """Robot: 1 when it runs with real-time priority."""
    POLICY_FIFO = 7
    """Policy: 1 when it runs with real-time priority."""
    ROWS = 8
    """Policy: rows of the flight ring written in the current episode."""
    ANSWERED = 9
    """Policy: observations of the current episode that it answered."""
    LATE = 10
    """Policy: those answered after their deadline."""
    POLICY_LOADED = 11
    """Policy: 1 when the artefact is loaded and warm."""


class ObservationField(IntEnum):
    """Columns of an observation record; the native state [D_task] follows the last one."""

    EPISODE = 0
    """Number of the episode, from 1."""
    TICK = 1
    """Decisions made before this observation."""
    SCHEDULED = 2
    """When this tick was due, in seconds of time.monotonic; the next one is due one period later."""
    ENDED = 3
    """1 for the last observation of an episode: no command is expected."""
    SUCCESS = 4
    """The suite's success signal now."""
    SUCCEEDED = 5
    """1 from the first success of the episode on."""
    TERMINATED = 6
    """1 when the problem itself ended."""
    RETURN = 7
    """Sum of rewards so far."""
    SLIPS = 8
    """Times that the robot's own clock fell behind and was realigned."""
    TIMEOUTS = 9
    """Decisions for which the robot held because commands had stopped."""


class CommandField(IntEnum):
    """Columns of a command record; the action [A_task] follows the last one."""

    EPISODE = 0
    """Number of the episode that the command belongs to."""
    TICK = 1
    """Tick of the observation that it answers."""


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode to run."""

    task: str
    """Full name "suite/task"."""
    start: int
    """Initial state."""
    options: Mapping[str, Any]
    """Suite-specific settings that the task is built with."""
    protocol_hash: str
    """Hash that the task must have."""


@dataclass(frozen=True)
class SessionSpec:
    """The input of a robot or policy process, one line of JSON on its standard input."""

    artefact: str
    """Directory of the artefact."""
    episodes: tuple[EpisodeSpec, ...]
    """In the order in which they run."""
    robot: RobotConfig
    """The site's configuration."""
    seed: int
    """Seed of the policy's noise."""
    parent: int
    """Process id of the session; a child whose parent is another one ends itself."""
    blocks: Mapping[str, tuple[int, int]]
    """Shared block -> (file descriptor, words): control, observation, command, ring."""


class SessionMemory:
    """The shared blocks of a session, as one process sees them."""

    def __init__(self, blocks: Mapping[str, SharedBlock]) -> None:
        """Blocks by name: control, observation, command, ring."""
        self.blocks = dict(blocks)
        self.control = blocks["control"].integers
        """Indexed by `ControlField`."""
        self.observations = Seqlock(blocks["observation"])
        self.commands = Seqlock(blocks["command"])
        self.ring = blocks["ring"].floats
        """Flight rows of the current episode, flat; `FlightRing` shapes them."""

    @staticmethod
    def create(state_size: int, action_size: int, ring_words: int) -> SessionMemory:
        """New blocks for states and actions of at most these sizes."""
        words = {
            "control": len(ControlField),
            "observation": Seqlock.words(len(ObservationField) + state_size),
            "command": Seqlock.words(len(CommandField) + action_size),
            "ring": ring_words,
        }
        return SessionMemory({name: SharedBlock.create(count) for name, count in words.items()})

    @staticmethod
    def attach(spec: SessionSpec) -> SessionMemory:
        """The blocks that a session passed to this process."""
        return SessionMemory({name: SharedBlock(*pair) for name, pair in spec.blocks.items()})

    def descriptors(self) -> dict[str, tuple[int, int]]:
        """The value of `SessionSpec.blocks`."""
        return {name: (block.descriptor, block.words) for name, block in self.blocks.items()}

    def close(self) -> None:
        """Closes every descriptor."""
        for block in self.blocks.values():
            block.close()
