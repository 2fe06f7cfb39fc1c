"""What one task observes and how it acts, before any padding."""

from __future__ import annotations

from dataclasses import dataclass

from mtrl.errors import SpaceError


@dataclass(frozen=True)
class ObservationSpec:
    """The observation of one task; a task may fill several buckets.

    A field is None when the task does not fill that bucket.
    """

    state: int | None = None
    """Length of the float32 state vector."""
    pixels: tuple[int, int, int] | None = None
    """Channels, height, width of the uint8 image stack."""

    def __post_init__(self) -> None:
        if self.state is None and self.pixels is None:
            raise SpaceError("an observation needs a state vector or pixels; got neither")
        if self.state is not None and self.state < 1:
            raise SpaceError(f"a state vector needs at least one entry; got {self.state}")
        if self.pixels is not None and (len(self.pixels) != 3 or min(self.pixels) < 1):
            raise SpaceError(f"pixels are (channels, height, width), all positive; got {self.pixels}")

    @property
    def buckets(self) -> tuple[str, ...]:
        """Names of the buckets this task fills, in layout order."""
        filled = (("state", self.state), ("pixels", self.pixels))
        return tuple(name for name, value in filled if value is not None)


@dataclass(frozen=True)
class ActionSpec:
    """The action of one task: continuous in [-1, 1] per dimension, or one discrete index."""

    continuous: int = 0
    """Number of continuous dimensions; the adapter scales [-1, 1] to the simulator's bounds."""
    discrete: int = 0
    """Number of discrete actions."""

    def __post_init__(self) -> None:
        if (self.continuous > 0) == (self.discrete > 0) or min(self.continuous, self.discrete) < 0:
            raise SpaceError(
                "an action is either continuous or discrete; "
                f"got continuous={self.continuous}, discrete={self.discrete}"
            )

    @property
    def is_discrete(self) -> bool:
        """Whether the task takes an index rather than a vector."""
        return self.discrete > 0
