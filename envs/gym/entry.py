"""The suite's record of one environment of Gymnasium; imports no Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mtrl.tasks import Score

if TYPE_CHECKING:
    import gymnasium

Simulator: TypeAlias = "gymnasium.Env[Any, Any]"


@dataclass(frozen=True)
class GymEntry:
    """Data from which a task of this suite is described."""

    state: int | None
    """Length of the state vector; None when the environment shows images."""
    pixels: tuple[int, int, int] | None
    """Channels, height, width of the image; None when the environment shows numbers."""
    continuous: int
    """Action dimensions, or 0."""
    discrete: int
    """Action indices, or 0."""
    rate_hz: float
    """Environment steps per simulated second."""
    max_steps: int | None
    """`max_episode_steps` of the id, in environment steps."""
    reward_threshold: float | None
    """Return at which Gymnasium calls the id solved."""
    random_return: float | None = None
    """Mean return of random play, measured by `catalogue.py`."""

    def __post_init__(self) -> None:
        if self.pixels is not None:
            channels, height, width = self.pixels
            object.__setattr__(self, "pixels", (channels, height, width))

    @property
    def score(self) -> Score:
        """Return scaled from random play to the id's reward threshold where both are known, else unscaled."""
        low, high = self.random_return, self.reward_threshold
        if low is None or high is None or not high > low:
            return Score("return")
        return Score("return", low=low, high=high)
