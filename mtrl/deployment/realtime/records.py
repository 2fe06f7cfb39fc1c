"""Every record that the processes of a deployment share, their memory, and the input of each process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from ..guard.limits import MODES, GuardConfig, RobotConfig
from .shared_memory import Seqlock, SharedBlock

Float64 = npt.NDArray[np.float64]

ENDING_BYTES = 8192
"""Longest account of what ended an episode, in UTF-8."""


class ControlField(IntEnum):
    """Integers of the control block, each with one writer. Episodes count from 1, so 0 is "none yet"."""

    STOP = 0
    """Session: 1 ends every process."""
    GO = 1
    """Session: the newest episode that may start."""
    ROBOT_READY = 2
    """Robot: the newest episode whose initial state is set up."""
    POLICY_READY = 3
    """Policy: the newest episode that it is ready for."""
    ROBOT_DONE = 4
    """Robot: the newest episode that ended."""
    POLICY_DONE = 5
    """Policy: the newest episode whose last observation it has seen."""
    ROBOT_FIFO = 6
    """Robot: 1 when it runs with real-time priority."""
    POLICY_FIFO = 7
    """Policy: 1 when it runs with real-time priority."""
    ROWS = 8
    """Servo: rows of the flight ring written in the episode of SERVO_READY."""
    ANSWERED = 9
    """Servo: observations of the current episode that it answered."""
    LATE = 10
    """Servo: those answered after their deadline."""
    POLICY_LOADED = 11
    """Policy: the newest episode that it is loaded for; the session's last one, once the graph is warm."""
    SERVO_READY = 12
    """Servo: the newest episode that it is ready for."""
    SERVO_DONE = 13
    """Servo: the newest episode whose last tick is recorded."""
    SERVO_FIFO = 14
    """Servo: 1 when it runs with real-time priority, in locked memory, on a processor of its own choice."""
    STATE = 15
    """Servo: the guard's state."""
    HELD = 16
    """Servo: ticks of the current episode on which the guard held; a plan that was held is out of date."""
    WAKE_UPS = 17
    """Servo: ticks of its own clock in the current episode."""
    ENDING = 18
    """Session: the newest episode whose end it has written down."""
    LOGGER_DONE = 19
    """Logger: the newest episode whose log is finished."""


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
    DROPPED = 10
    """Readings or messages of the robot that were refused."""
    UNSOLVED = 11
    """Decisions whose target no joint positions were found for."""
    LIMITED = 12
    """Decisions in which a limit of a joint or of the workspace changed what was commanded."""
    BREACH = 13
    """Bits of `GuardFlag` for what the robot measures beyond a limit."""


class ProposalField(IntEnum):
    """Columns of a proposal record, whose stamp is when it was ready; the action [A_task] follows."""

    EPISODE = 0
    """Number of the episode that the proposal belongs to."""
    TICK = 1
    """Tick of the observation that it answers."""
    INFERENCE_S = 2
    """Time that inference took, in seconds; 0 when the action comes from an earlier chunk."""
    PLANNED = 3
    """1 when this tick planned a chunk."""


def image_stamp(episode: float, tick: float) -> float:
    """Which observation an image belongs to; exact for 2^21 episodes of 2^31 decisions."""
    return episode * 2.0**31 + tick


class CommandField(IntEnum):
    """Columns of a command record; the action [A_task] follows the last one."""

    EPISODE = 0
    """Number of the episode that the command belongs to."""
    TICK = 1
    """Tick of the observation that it answers."""


class Column(IntEnum):
    """Leading columns of a flight row; observation [D], proposed action [A] and command [A] follow."""

    TICK = 0
    """Tick of the observation that was answered."""
    SCHEDULED = 1
    """When the robot's tick was due; all times in seconds of time.monotonic."""
    OBSERVED = 2
    """When the robot published the observation."""
    READ = 3
    """When the servo decided: the guard's "now"."""
    INFERRED = 4
    """When the newest proposal was ready; before the first one, when the first observation came."""
    SENT = 5
    """When the command was in shared memory."""
    INFERENCE_S = 6
    """Time that inference took, in seconds; 0 when the action comes from an earlier chunk."""
    PLANNED = 7
    """1 when this tick planned a chunk."""
    FLAGS = 8
    """Bits of GuardFlag."""
    STATE = 9
    """GuardState after the tick."""
    BREACH = 10
    """Bits of GuardFlag that the robot itself reported."""


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
    guard: GuardConfig
    """Limits in force."""
    log: str
    """Path of the flight log, absolute."""


@dataclass(frozen=True)
class SessionSpec:
    """The input of every process but the session's, one line of JSON on its standard input."""

    artefact: str
    """Root hash of the artefact."""
    manifest: str
    """The artefact's manifest, as JSON."""
    graph_bytes: int
    """Length of the artefact's graph in the block of that name: no process reads the files again."""
    episodes: tuple[EpisodeSpec, ...]
    """In the order in which they run."""
    robot: RobotConfig
    """The site's configuration."""
    mode: Annotated[str, MODES]
    """What is done to the robot."""
    joints: tuple[str, ...]
    """Names of the robot's joints; none for a robot that does not show them."""
    site: str
    """A robot of joints as its file says, with the limits in force; JSON of `Site`."""
    model: str
    """The MJCF model of its kinematics; empty where it has none."""
    seed: int
    """Seed of the policy's noise."""
    parent: int
    """Process id of the session; a child whose parent is another one ends itself."""
    blocks: Mapping[str, tuple[int, int]]
    """Shared block -> (file descriptor, words), the names being those of `SessionMemory`."""

    def joint_words(self, action_size: int) -> int:
        """Numbers of an observation record that are of joints, after the state."""
        return joint_words(len(self.joints), action_size)


class SessionMemory:
    """The shared blocks of a session, as one process sees them."""

    def __init__(self, blocks: Mapping[str, SharedBlock]) -> None:
        """Blocks by name: control, observation, proposal, command, ring, lateness, ending, graph, image."""
        self.blocks = dict(blocks)
        self.control = blocks["control"].integers
        """Indexed by `ControlField`."""
        self.observations = Seqlock(blocks["observation"])
        self.images = Seqlock(blocks["image"])
        """The image of an observation, which comes before it; its stamp is `image_stamp`, its bytes are read
        as words."""
        self.proposals = Seqlock(blocks["proposal"])
        """From the policy to the servo."""
        self.commands = Seqlock(blocks["command"])
        """From the servo to the robot."""
        self.ring = blocks["ring"].floats
        """Flight rows of the current episode, flat; `FlightRing` shapes them."""
        self.lateness = blocks["lateness"].floats
        """How late the servo woke up at each of its ticks of the current episode, in seconds."""
        self.graph = blocks["graph"]
        """The policy's graph as it was verified."""

    @staticmethod
    def create(
        state_size: int,
        action_size: int,
        rows: int,
        wake_ups: int,
        graph: bytes,
        joints: int = 0,
        image: int = 1,
    ) -> SessionMemory:
        """New blocks for states and actions of at most these sizes, images of `image` words, and episodes of
        at most `rows` ticks of the guard and `wake_ups` of the servo.
        """
        extra = joint_words(joints, action_size)
        words = {
            "control": len(ControlField),
            "observation": Seqlock.words(len(ObservationField) + state_size + extra),
            "proposal": Seqlock.words(len(ProposalField) + action_size),
            "command": Seqlock.words(len(CommandField) + action_size),
            "ring": rows * row_width(state_size, action_size, extra),
            "lateness": wake_ups,
            "ending": ENDING_BYTES // 8,
            "graph": len(graph) // 8 + 1,
            "image": Seqlock.words(image),
        }
        memory = SessionMemory({name: SharedBlock.create(count) for name, count in words.items()})
        memory.graph.store(graph)
        return memory

    @staticmethod
    def attach(spec: SessionSpec) -> SessionMemory:
        """The blocks that a session passed to this process."""
        return SessionMemory({name: SharedBlock(*pair) for name, pair in spec.blocks.items()})

    @property
    def ending(self) -> str:
        """What ended the episode of `ControlField.ENDING`."""
        return self.blocks["ending"].load(ENDING_BYTES).rstrip(b"\0").decode(errors="ignore")

    @ending.setter
    def ending(self, text: str) -> None:
        self.blocks["ending"].store(text.encode()[:ENDING_BYTES].ljust(ENDING_BYTES, b"\0"))

    def descriptors(self) -> dict[str, tuple[int, int]]:
        """The value of `SessionSpec.blocks`."""
        return {name: (block.descriptor, block.words) for name, block in self.blocks.items()}

    def close(self) -> None:
        """Closes every descriptor."""
        for block in self.blocks.values():
            block.close()


class FlightRing:
    """The flight recorder: one preallocated row per tick, of which the first `count` are filled.

    The servo writes rows and touches no file; another process copies them into a log. The memory is
    shared, so the rows survive the death of the process that wrote them.
    """

    def __init__(self, memory: Float64, state_size: int, action_size: int, joint_words: int = 0) -> None:
        """`memory`: flat, at least one row; `state_size` D and `action_size` A are one task's own, and
        `joint_words` B the numbers of joints.
        """
        self.state_size = state_size
        self.action_size = action_size
        self.joint_words = joint_words
        width = row_width(state_size, action_size, joint_words)
        self.capacity = len(memory) // width
        self.count = 0
        rows = memory[: self.capacity * width].reshape(self.capacity, width)
        ends = np.cumsum([len(Column), state_size, action_size, action_size])
        self.numbers, self.observation, self.proposal, self.command, self.joints = np.split(
            rows, ends, axis=1
        )
        """Views of the memory: [capacity, 11], [capacity, D], [capacity, A], [capacity, A], [capacity, B]."""

    def append(
        self,
        numbers: tuple[float, ...],
        observation: Float64,
        proposal: Float64,
        command: Float64,
        joints: Float64 | None = None,
    ) -> bool:
        """Adds one row; `numbers` are the leading columns in order. False when the ring is full."""
        if self.count >= self.capacity:
            return False
        self.numbers[self.count] = numbers
        self.observation[self.count] = observation
        self.proposal[self.count] = proposal
        self.command[self.count] = command
        if joints is not None:
            self.joints[self.count] = joints
        self.count += 1
        return True


def row_width(state_size: int, action_size: int, joint_words: int = 0) -> int:
    """Words of one row."""
    return len(Column) + state_size + 2 * action_size + joint_words


def joint_words(joints: int, action_size: int) -> int:
    """Numbers that J joints add to an observation of a task of A actions: A + 5 J + 3, as `Jointed` says."""
    return action_size + 5 * joints + 3 if joints else 0
