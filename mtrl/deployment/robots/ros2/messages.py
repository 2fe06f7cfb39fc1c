"""The ROS 2 messages as cyclonedds knows them: names mangled as ROS 2 does, read by our own decoder."""

from dataclasses import dataclass, field
from typing import Any

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import final
from cyclonedds.idl.types import float64, int32, sequence, uint32

from . import cdr

# Without `from __future__ import annotations`: cyclonedds builds its types from the annotations themselves.


class Malformed:
    """Stands for a message that could not be read."""


class Read:
    """Stands for a message that was read."""

    sample_info: Any
    """Set by cyclonedds."""

    def __init__(self, value: object) -> None:
        self.value = value


@dataclass
@final
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    """builtin_interfaces/msg/Time."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
@final
class Duration(IdlStruct, typename="builtin_interfaces::msg::dds_::Duration_"):
    """builtin_interfaces/msg/Duration."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
@final
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    """std_msgs/msg/Header."""

    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
@final
class JointState(IdlStruct, typename="sensor_msgs::msg::dds_::JointState_"):
    """sensor_msgs/msg/JointState."""

    header: Header = field(default_factory=Header)
    name: sequence[str] = field(default_factory=list)
    position: sequence[float64] = field(default_factory=list)
    velocity: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)

    @classmethod
    def deserialize(cls, data: bytes, *_: object, **__: object) -> object:
        """Called by cyclonedds for what arrived; what it raised would lose the messages that follow."""
        try:
            return Read(cdr.joint_state(bytes(data)))
        except ValueError:
            return Malformed()


@dataclass
@final
class Dimension(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayDimension_"):
    """std_msgs/msg/MultiArrayDimension."""

    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


@dataclass
@final
class ArrayLayout(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayLayout_"):
    """std_msgs/msg/MultiArrayLayout."""

    dim: sequence[Dimension] = field(default_factory=list)
    data_offset: uint32 = 0


@dataclass
@final
class FloatArray(IdlStruct, typename="std_msgs::msg::dds_::Float64MultiArray_"):
    """std_msgs/msg/Float64MultiArray."""

    layout: ArrayLayout = field(default_factory=ArrayLayout)
    data: sequence[float64] = field(default_factory=list)

    @classmethod
    def deserialize(cls, data: bytes, *_: object, **__: object) -> object:
        """As `JointState.deserialize`."""
        try:
            return Read(cdr.float_array(bytes(data)))
        except ValueError:
            return Malformed()


@dataclass
@final
class Bool(IdlStruct, typename="std_msgs::msg::dds_::Bool_"):
    """std_msgs/msg/Bool."""

    data: bool = False

    @classmethod
    def deserialize(cls, data: bytes, *_: object, **__: object) -> object:
        """As `JointState.deserialize`."""
        try:
            return Read(cdr.boolean(bytes(data)))
        except ValueError:
            return Malformed()


@dataclass
@final
class TrajectoryPoint(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectoryPoint_"):
    """trajectory_msgs/msg/JointTrajectoryPoint."""

    positions: sequence[float64] = field(default_factory=list)
    velocities: sequence[float64] = field(default_factory=list)
    accelerations: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)
    time_from_start: Duration = field(default_factory=Duration)


@dataclass
@final
class Trajectory(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectory_"):
    """trajectory_msgs/msg/JointTrajectory."""

    header: Header = field(default_factory=Header)
    joint_names: sequence[str] = field(default_factory=list)
    points: sequence[TrajectoryPoint] = field(default_factory=list)
