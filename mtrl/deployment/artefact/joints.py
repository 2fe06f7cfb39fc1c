"""Joints of a robot with their units and limits, as a site's `robot.yaml` and an artefact state them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from mtrl.errors import ConfigError
from mtrl.structured import POSITIVE, Checked, between

UNITS = {"rad": 1.0, "deg": 3.141592653589793 / 180, "m": 1.0, "mm": 1e-3}
"""Unit of a joint on the wire and in its limits -> radians or metres."""
TURNING = ("rad", "deg")
"""Units of joints that turn; the others slide."""
LARGEST = between(-1e6, 1e6)


@dataclass(frozen=True)
class Joint(Checked, place="joints"):
    """One joint; position and velocity limits are required. All are in the joint's unit."""

    name: str
    """Its name in JointState messages."""
    low: Annotated[float, LARGEST]
    """Lowest position that is commanded."""
    high: Annotated[float, LARGEST]
    """Highest position that is commanded."""
    velocity: Annotated[float, POSITIVE]
    """Largest speed that is commanded, per second."""
    unit: Annotated[str, tuple(UNITS)] = "rad"
    """Unit of this joint on the wire and here: rad, deg, m or mm."""
    acceleration: Annotated[float | None, POSITIVE] = None
    """Largest acceleration that is commanded, per second squared; the limits of position and workspace win
    over it. Absent: none."""
    effort: Annotated[float | None, POSITIVE] = None
    """Largest effort that is measured, in N m or N, beyond which the robot is stopped. Absent: none."""
    tracking: Annotated[float | None, POSITIVE] = None
    """Largest distance of the measured position from the commanded one, beyond which the robot is stopped.
    Absent: none."""
    start_low: Annotated[float | None, LARGEST] = None
    """Lowest position at which a flight may begin; `low` where absent."""
    start_high: Annotated[float | None, LARGEST] = None
    """Highest position at which a flight may begin; `high` where absent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        start_low = self.low if self.start_low is None else self.start_low
        start_high = self.high if self.start_high is None else self.start_high
        if not self.low <= start_low < start_high <= self.high:
            raise ConfigError(
                f"joint {self.name!r} needs low <= start_low < start_high <= high; got {self.low:g}, "
                f"{start_low:g}, {start_high:g}, {self.high:g}"
            )
        object.__setattr__(self, "start_low", start_low)
        object.__setattr__(self, "start_high", start_high)

    @property
    def turns(self) -> bool:
        """Whether it turns; otherwise it slides."""
        return self.unit in TURNING

    def within(self, other: Joint) -> Joint:
        """This joint with the tighter of both joints' limits; `other` may be in another unit.

        Raises ConfigError where one turns and the other slides, and where nothing is left between them.
        """
        if self.turns != other.turns:
            raise ConfigError(f"joint {self.name!r} is in {self.unit} here and in {other.unit} there")
        factor = UNITS[other.unit] / UNITS[self.unit]
        found: dict[str, float] = {}
        for name in (*UPPER, *LOWER):
            scale = 1.0 if name == "effort" else factor  # N m or N, whatever the unit of positions
            own, theirs = getattr(self, name), getattr(other, name)
            limits = [*([own] if own is not None else []), *([scale * theirs] if theirs is not None else [])]
            if limits:
                found[name] = max(limits) if name in LOWER else min(limits)
        return replace(self, **found)  # type: ignore[arg-type]  # every field of these names is a float


UPPER = ("high", "start_high", "velocity", "acceleration", "effort", "tracking")
"""Limits of which the smaller is the tighter."""
LOWER = ("low", "start_low")
"""Limits of which the larger is."""


@dataclass(frozen=True)
class Quantity(Checked):
    """One entry of an observation, or one dimension of an action, as a robot has it."""

    term: str
    """How it is made of joints, tool and perception: a term of `robot.yaml`."""
    unit: str = ""
    """Its unit before `SCALE` and `OFFSET`; empty where the term does not say."""


def tighter_joints(own: Sequence[Joint], other: Sequence[Joint], whose: str) -> tuple[Joint, ...]:
    """`own` in its order, each with the tighter of both limits; joints are bound by name.

    Raises ConfigError unless both name the same joints; `whose` says where `other` comes from.
    """
    if not other:
        return tuple(own)
    stated = {joint.name: joint for joint in other}
    names = [joint.name for joint in own]
    lacking, strange = sorted(stated.keys() - set(names)), sorted(set(names) - stated.keys())
    if lacking or strange:
        raise ConfigError(
            f"{whose} is for the joints {', '.join(stated)}; this robot has {', '.join(names)}. "
            f"Not here: {', '.join(lacking) or 'none'}; not there: {', '.join(strange) or 'none'}"
        )
    return tuple(joint.within(stated[joint.name]) for joint in own)
