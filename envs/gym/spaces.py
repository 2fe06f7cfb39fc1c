"""Gymnasium's spaces in mtrl's terms: what a task observes and how it acts.

An observation is checked as it is written: its type, its shape, and every number against the bounds of
its space. Its shape is the space's. For a space of floating-point numbers it may hold floats of any width, or
integers; for one of integers, integers that fit without loss, never floats; for an image uint8 alone. The
common case costs four NumPy calls on buffers made beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from mtrl.errors import UnsupportedError
from mtrl.outcomes import describe
from mtrl.spaces import ActionSpec, ObservationSpec, ResolutionCheck
from mtrl.tasks import Buffers, TaskAction

TOLERANCE = 1e-5
"""How far a floating-point number may leave its bounds, relative to the bound or to 1."""
LARGEST = float(np.finfo(np.float32).max)
"""The largest number that a state can hold."""
LARGEST_ONE_HOT = 10_000
"""Values of a Discrete observation beyond which a one-hot state is refused."""
SMALLEST_IMAGE = 16
"""Height and width from which a uint8 Box of rank 2 is taken for a grey image."""
WRAP_OBSERVATION = (
    "wrap it into a Box or Discrete and give the result to `mtrl.envs.gym.add_environment`: "
    "gymnasium.wrappers.FlattenObservation makes a vector of Dict, Tuple, MultiDiscrete and MultiBinary, "
    "gymnasium.wrappers.TransformObservation of anything else"
)
WRAP_ACTION = (
    "wrap it with gymnasium.wrappers.TransformAction, and give the result to `mtrl.envs.gym.add_environment`"
)


class ObservationReader(Protocol):
    """Writes the observations of one space into mtrl's buffers."""

    spec: ObservationSpec

    def write(self, observation: Any, out: Buffers) -> str:  # noqa: ANN401 - whatever the environment returned
        """Writes into `out`; returns what is wrong with the observation, or an empty string."""


class NumberReader:
    """A Box of numbers as the float32 `state`, flattened in C order."""

    def __init__(self, space: Box, task: str = "") -> None:
        """`task` is named when float32 loses what the environment observes."""
        size = int(np.prod(space.shape))
        self.spec = ObservationSpec(state=size)
        self._check: ResolutionCheck | None = ResolutionCheck(task, size)
        self._shape, self._dtype, self._rank = space.shape, _dtype_of(space), len(space.shape)
        self._bounds = np.stack([space.low.reshape(-1), space.high.reshape(-1)]).astype(np.float64)
        self._lowest, self._highest = _float32_bounds(self._bounds, exact=self._dtype.kind in "iub")
        self._flags = np.empty((2, size), dtype=bool)
        self._from_below, self._from_above = self._flags
        self._all_inside = bytes([True]) * (2 * size)

    def write(self, observation: Any, out: Buffers) -> str:  # noqa: ANN401
        """`out["state"]`: float32 [D]."""
        if (
            type(observation) is not np.ndarray
            or observation.dtype is not self._dtype
            or observation.shape != self._shape
        ):
            misfit = _misfit(observation, self._shape, self._dtype)
            if misfit:
                return f"state: {misfit}"
            observation = np.asarray(observation)
        state = out["state"]
        state[...] = observation if self._rank == 1 else observation.reshape(-1)
        if self._check is not None and not self._check.observe(observation.reshape(-1), state):
            self._check = None  # it has seen enough
        # A NaN is neither above nor below. Comparing bytes is several times faster than `all()`.
        np.greater_equal(state, self._lowest, out=self._from_below)
        np.less_equal(state, self._highest, out=self._from_above)
        if self._flags.tobytes() == self._all_inside:
            return ""
        return self._outside(np.asarray(observation).reshape(-1))

    def _outside(self, values: npt.NDArray[Any]) -> str:
        wrong = np.flatnonzero(~self._flags.all(axis=0))
        first = int(wrong[0])
        # an infinite bound refuses infinity: the message shows what float32 can hold
        low, high = np.clip(self._bounds[:, first], -LARGEST, LARGEST)
        others = f", and {len(wrong) - 1} more entries" if len(wrong) > 1 else ""
        return f"state[{first}] = {values[first]:g} outside [{low:g}, {high:g}]{others}"


class ImageReader:
    """A uint8 Box of rank 2 or 3 as `pixels` [C, H, W]."""

    def __init__(self, space: Box) -> None:
        self._shape, self._dtype = space.shape, _dtype_of(space)
        self._low, self._high = int(space.low.min()), int(space.high.max())
        self._narrow = (self._low, self._high) != (0, 255)
        self._axes = _channels_first(space.shape)
        shape = space.shape if self._axes is None else tuple(space.shape[axis] for axis in self._axes)
        channels, height, width = shape if len(shape) == 3 else (1, *shape)
        self.spec = ObservationSpec(pixels=(channels, height, width))

    def write(self, observation: Any, out: Buffers) -> str:  # noqa: ANN401
        """`out["pixels"]`: uint8 [C, H, W]."""
        misfit = _misfit(observation, self._shape, self._dtype)
        # a wider integer would wrap around
        if misfit or observation.dtype != self._dtype:
            return f"pixels: {misfit or _expected(observation, self._shape, self._dtype)}"
        out["pixels"][...] = observation if self._axes is None else observation.transpose(self._axes)
        if self._narrow and not self._low <= observation.min() <= observation.max() <= self._high:
            return (
                f"pixels from {observation.min()} to {observation.max()} outside [{self._low}, {self._high}]"
            )
        return ""


class OneHotReader:
    """A Discrete observation as a one-hot `state`."""

    def __init__(self, space: Discrete[Any]) -> None:
        self._count, self._first = int(space.n), int(space.start)
        self.spec = ObservationSpec(state=self._count)

    def write(self, observation: Any, out: Buffers) -> str:  # noqa: ANN401
        """`out["state"]`: float32 [n], 1 at the observed value."""
        if isinstance(observation, np.ndarray) and observation.shape == ():
            observation = observation[()]
        if not isinstance(observation, int | np.integer) or isinstance(observation, bool):
            return f"state: expected a whole number; got {describe(observation)}"
        index = int(observation) - self._first
        if not 0 <= index < self._count:
            return f"state = {observation} outside [{self._first}, {self._first + self._count - 1}]"
        state = out["state"]
        state[...] = 0.0
        state[index] = 1.0
        return ""


def reader_for(name: str, space: Space[Any]) -> ObservationReader:
    """How to read the observations of the environment of task `name`.

    Raises UnsupportedError for a space that is neither numbers, an image nor Discrete.
    """
    if isinstance(space, Discrete) and int(space.n) <= LARGEST_ONE_HOT:
        return OneHotReader(space)
    if isinstance(space, Box) and _dtype_of(space).kind in "fiub" and 0 not in space.shape:
        is_image = space.dtype == np.uint8
        if is_image and len(space.shape) == 3:
            return ImageReader(space)
        if is_image and len(space.shape) == 2 and min(space.shape) >= SMALLEST_IMAGE:
            return ImageReader(space)
        if len(space.shape) <= 2:
            return NumberReader(space, name)
        raise UnsupportedError(
            f"{name} observes {space}; a Box of numbers has at most two axes, and an image is uint8 with "
            f"three: {WRAP_OBSERVATION}"
        )
    if isinstance(space, Discrete):
        raise UnsupportedError(
            f"{name} observes {space}; a one-hot state of more than {LARGEST_ONE_HOT} entries is refused: "
            f"{WRAP_OBSERVATION}"
        )
    raise UnsupportedError(f"{name} observes {space}, which mtrl does not map: {WRAP_OBSERVATION}")


def action_for(name: str, space: Space[Any]) -> tuple[ActionSpec, Callable[[TaskAction], Any]]:
    """How task `name` acts: the spec, and a function from mtrl's action to the environment's own.

    An index is shifted by the space's start; a vector in [-1, 1] is scaled to the bounds of each
    dimension, clipped and shaped. Raises UnsupportedError for other spaces and for infinite bounds.
    """
    if isinstance(space, Discrete):
        first = int(space.start)
        return ActionSpec(discrete=int(space.n)), lambda action: first + int(action)
    if not isinstance(space, Box) or _dtype_of(space).kind != "f" or 0 in space.shape:
        raise UnsupportedError(
            f"{name} acts by {space}; mtrl acts by Discrete or by a Box of floating-point numbers: "
            f"{WRAP_ACTION}{_as_one_index(space)}"
        )
    low, high = (np.asarray(bound, dtype=np.float64).reshape(-1) for bound in (space.low, space.high))
    # the largest float32 stands for infinity in many environments
    endless = np.flatnonzero(~((np.abs(low) < 1e30) & (np.abs(high) < 1e30)))
    if len(endless):
        first = int(endless[0])
        raise UnsupportedError(
            f"{name} acts in a Box whose dimension {first} reaches from {low[first]:g} to {high[first]:g}; "
            f"an action in [-1, 1] is scaled to the bounds, so they have to be finite: {WRAP_ACTION}"
        )
    middle, half = ((high + low) / 2.0).astype(space.dtype), ((high - low) / 2.0).astype(space.dtype)
    shape, flat = space.shape, len(space.shape) == 1
    spec = ActionSpec(continuous=len(low))
    lowest, highest = space.low.reshape(-1), space.high.reshape(-1)

    def scaled(action: TaskAction) -> npt.NDArray[Any]:
        # a new array, since an environment may keep the one that it is given
        native = half * action
        native += middle
        np.maximum(native, lowest, out=native)
        np.minimum(native, highest, out=native)
        return native if flat else native.reshape(shape)

    return spec, scaled


def _as_one_index(space: Space[Any]) -> str:
    """How to number the combinations of a MultiDiscrete; empty for other spaces and for very many."""
    if not isinstance(space, MultiDiscrete) or space.nvec.ndim != 1:
        return ""
    count, sizes, first = math.prod(space.nvec.tolist()), tuple(space.nvec.tolist()), space.start.tolist()
    if count > LARGEST_ONE_HOT:
        return ""
    shift = f" + np.array({first})" if any(first) else ""
    return (
        f": TransformAction(env, lambda index: np.stack(np.unravel_index(index, {sizes})){shift}, "
        f"gymnasium.spaces.Discrete({count}))"
    )


def _dtype_of(space: Box) -> np.dtype[Any]:
    return np.dtype(space.dtype)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The axes that bring an image to [C, H, W]; None when it stands so already, or has no channels.

    The channels are the shorter of the first and the last axis, the last where they are equal.
    """
    return (2, 0, 1) if len(shape) == 3 and shape[2] <= shape[0] else None


def _float32_bounds(
    bounds: npt.NDArray[np.float64], exact: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Bounds to compare with, widened by the tolerance; an infinite one still refuses infinity."""
    slack = np.zeros_like(bounds) if exact else TOLERANCE * np.maximum(np.abs(bounds), 1.0)
    low = np.clip(bounds[0] - slack[0], -LARGEST, LARGEST)
    high = np.clip(bounds[1] + slack[1], -LARGEST, LARGEST)
    return low.astype(np.float32), high.astype(np.float32)


def _misfit(observation: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """How the observation's type or shape differs from the declared one; empty when it does not."""
    if isinstance(observation, np.ndarray | np.generic) or (
        shape == () and isinstance(observation, int | float)
    ):
        came = np.asarray(observation)
        kind = came.dtype.kind
        fits = kind == dtype.kind or (kind in "iub" and (dtype.kind == "f" or np.can_cast(came.dtype, dtype)))
        if came.shape == shape and fits:
            return ""
    return _expected(observation, shape, dtype)


def _expected(observation: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"expected an array of {dtype} with shape {list(shape)}; got {describe(observation)}"
