"""`robot.yaml`, what a site says of its robot: joints with units and limits, topics, network, and for each
task how observations and actions are made of joints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from mtrl.errors import ConfigError
from mtrl.reading import MEGABYTE, parse_yaml, read_bytes, reading
from mtrl.structured import POSITIVE, SHARE, Checked, at_least, between, build

from ..artefact.joints import LARGEST, Joint

TOPIC = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
"""A topic's name in ROS 2."""
ADDRESS = re.compile(r"[A-Za-z0-9_.:%-]+")
"""An interface or host."""
FAULTS = ("drop", "delay", "reorder", "nan", "freeze", "jump", "stop")


@dataclass(frozen=True)
class Topics(Checked, place="topics"):
    """Topics of a robot that speaks ROS 2, as `ros2 topic list` shows them."""

    state: str = "joint_states"
    """sensor_msgs/JointState, from the robot; several publishers may each send some of the joints."""
    command: str = "forward_position_controller/commands"
    """To the robot, of the kind below; positions in the order of `joints`."""
    kind: Annotated[str, ("array", "trajectory")] = "array"
    """`array`: std_msgs/Float64MultiArray; `trajectory`: trajectory_msgs/JointTrajectory of one point, which
    a joint_trajectory_controller with a time-out of commands takes: prefer it."""
    perception: str = ""
    """std_msgs/Float64MultiArray, such as poses of objects; empty: none."""
    perception_size: Annotated[int, between(0, 4096)] = 0
    """Numbers in that message."""
    stop: str = ""
    """std_msgs/Bool of an emergency stop: true stops the flight, which a person begins again; empty: none."""
    stop_timeout_ms: Annotated[float, between(0, 60_000)] = 0.0
    """Silence of that topic, in milliseconds, that stops the flight too; 0: its silence means nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in filter(None, (self.state, self.command, self.perception, self.stop)):
            if not TOPIC.fullmatch(name):
                raise ConfigError(f"{name!r} is no name of a ROS 2 topic, such as arm/joint_states")
        if bool(self.perception) != bool(self.perception_size):
            raise ConfigError("topics.perception and topics.perception_size are given together")
        if self.stop_timeout_ms and not self.stop:
            raise ConfigError("topics.stop_timeout_ms needs topics.stop")


@dataclass(frozen=True)
class Network(Checked, place="network"):
    """Where the robot is heard. By default this machine alone: nothing leaves it."""

    domain: Annotated[int, between(0, 232)] = 0
    """ROS_DOMAIN_ID."""
    interface: str = "lo"
    """Network interface; lo is this machine alone."""
    peers: tuple[str, ...] = ("127.0.0.1",)
    """Hosts that are looked for, by unicast."""
    multicast: bool = False
    """Whether hosts may also find each other by multicast."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "peers", tuple(self.peers))
        super().__post_init__()
        for name in (self.interface, *self.peers):
            if not ADDRESS.fullmatch(name):
                raise ConfigError(f"{name!r} is neither an interface nor a host")


@dataclass(frozen=True)
class Success(Checked, place="success"):
    """Success where two places of an observation are close: |observation[of] - observation[to]| <= within."""

    of: tuple[int, ...]
    """Entries of the observation."""
    within: Annotated[float, POSITIVE]
    """Largest distance."""
    to: tuple[int, ...] = ()
    """As many entries; zeros where absent."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", tuple(self.of))
        object.__setattr__(self, "to", tuple(self.to))
        super().__post_init__()
        if not self.of or len(self.to) not in (0, len(self.of)):
            raise ConfigError("success.of needs an entry or more, success.to as many or none")


@dataclass(frozen=True)
class Binding(Checked, place="tasks"):
    """What a task's observation and action are on this robot; `terms.py` has the grammar of a term."""

    observation: tuple[str, ...]
    """Terms of the observation, in order."""
    action: tuple[str, ...]
    """One term for each dimension of the action."""
    success: Success | None = None
    """What counts as success; absent: nothing measures it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "observation", tuple(self.observation))
        object.__setattr__(self, "action", tuple(self.action))
        super().__post_init__()


@dataclass(frozen=True)
class Fault(Checked, place="faults"):
    """A fault that the simulated arm has on demand."""

    kind: Annotated[str, FAULTS]
    """drop: readings do not arrive. delay: they arrive `ticks` later. reorder: two arrive in the wrong order.
    nan: a joint's position is NaN. freeze: the robot answers nothing for `ticks` periods. jump: a joint's
    position is `amount` off. stop: the emergency stop is pressed."""
    at: Annotated[int, at_least(1)]
    """First decision with the fault."""
    ticks: Annotated[int, between(1, 1_000_000)] = 1
    """Decisions with it."""
    amount: Annotated[float, between(-10, 10)] = 1.0
    """Of a jump, in radians or metres."""
    joint: Annotated[int, at_least(0)] = 0
    """Index of the joint for nan and jump."""


@dataclass(frozen=True)
class Workspace(Checked, place="workspace"):
    """The box that the tool is commanded to stay in, in the model's frame, in metres."""

    low: Annotated[tuple[float, ...], LARGEST]
    """Least x, y, z."""
    high: Annotated[tuple[float, ...], LARGEST]
    """Largest x, y, z."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", tuple(self.low))
        object.__setattr__(self, "high", tuple(self.high))
        super().__post_init__()
        fits = len(self.low) == len(self.high) == 3
        if not fits or not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"workspace needs low < high in x, y and z; got {self.low}, {self.high}")


@dataclass(frozen=True)
class Site(Checked, place="robot"):
    """The whole file."""

    joints: tuple[Joint, ...]
    """In the order of commands."""
    tasks: Mapping[str, Binding]
    """Full name of a task, or name of a suite -> what its observations and actions are."""
    topics: Topics = field(default_factory=Topics)
    """Topics of ROS 2."""
    network: Network = field(default_factory=Network)
    """Where the robot is heard."""
    model: str = ""
    """MJCF file beside this one with the arm's kinematics, for terms of the tool."""
    tool: str = "tool"
    """Site of the model that tools are at."""
    workspace: Workspace | None = None
    """Box of the tool; needed for actions that move it."""
    solved_mm: Annotated[float, between(0.01, 100)] = 5.0
    """Distance of the tool from its target, in millimetres, within which inverse kinematics is solved."""
    clearance_mm: Annotated[float, between(0, 1000)] = 0.0
    """Least distance, in millimetres, between capsules and spheres of the model that are no neighbours: a
    command that brings them nearer is given up. 0: not checked."""
    artefact: str = ""
    """Id of the only artefact that this robot takes, or its first digits, 12 or more; empty: any."""
    stamps: Annotated[str, ("receipt", "header")] = "receipt"
    """What the age of a reading counts from: its receipt, or its header's stamp, which needs clocks that are
    synchronised."""
    smoothness: Annotated[float, SHARE] = 0.02
    """Share of a joint's range that its reading may jump beyond twice its velocity limit."""
    faults: tuple[Fault, ...] = ()
    """Faults of the simulated arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [joint.name for joint in self.joints]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"robot.joints needs joints of different names, at least one; got {names}")
        if self.artefact and not re.fullmatch(r"[0-9a-f]{12,64}", self.artefact):
            raise ConfigError(f"robot.artefact is 12 to 64 hexadecimal digits; got {self.artefact!r}")
        for fault in self.faults:
            if fault.joint >= len(names):
                raise ConfigError(f"a fault names joint {fault.joint}; the last one is {len(names) - 1}")

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Site:
        """Reads what `to_json` wrote; raises ConfigError for what is none."""
        return build(Site, json.loads(text), "robot")

    def binding(self, task: str) -> Binding:
        """The entry of a task or of its suite; raises ConfigError where there is none."""
        found = self.tasks.get(task) or self.tasks.get(task.partition("/")[0])
        if found is None:
            raise ConfigError(f"robot.yaml binds no task {task}; it has {', '.join(sorted(self.tasks))}")
        return found


def read_site(path: Path) -> Site:
    """The checked content of a `robot.yaml`; raises IntegrityError naming the file and what is wrong."""
    with reading(path, "a robot.yaml"):
        values: Any = parse_yaml(read_bytes(path, MEGABYTE))
        if not isinstance(values, dict):
            raise ValueError(f"it needs the keys {', '.join(item.name for item in fields(Site))}")
        return build(Site, values, "robot")
