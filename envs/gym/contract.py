"""Checks of what an environment returns."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .entry import Simulator

FLAGS = (bool, np.bool_)
"""Types of a flag; an array of rank 0 is taken too."""
NUMBERS = (float, int, np.float64, np.float32)
"""Types of a reward that are recognised at once; other numbers are recognised more slowly."""
Step = tuple[Any, float, bool, bool, Mapping[str, Any]]
"""Observation, reward, terminated, truncated, info."""


class ContractViolation(Exception):
    """An environment returned what it may not; the text says what."""


def checked_reset(simulator: Simulator, seed: int) -> Any:  # noqa: ANN401 - whatever the environment returned
    """The first observation; raises ContractViolation for anything but (observation, info)."""
    returned: object = simulator.reset(seed=seed)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ContractViolation(f"reset returned {_values(returned)}; expected 2 values: observation, info")
    if not isinstance(returned[1], Mapping):
        raise ContractViolation(f"info of reset is a {type(returned[1]).__name__}; expected a dictionary")
    return returned[0]


def checked_step(simulator: Simulator, action: Any) -> Step:  # noqa: ANN401 - in the environment's own terms
    """One step; the reward as a number, finite or not, the flags as booleans.

    Raises ContractViolation unless there are five values, a reward of one number and boolean flags.
    """
    returned: object = simulator.step(action)
    if not isinstance(returned, tuple) or len(returned) != 5:
        raise ContractViolation(
            f"step returned {_values(returned)}; expected 5 values: "
            "observation, reward, terminated, truncated, info"
        )
    observation, reward, terminated, truncated, info = returned
    if type(reward) not in NUMBERS:
        reward = _number(reward)
    if type(terminated) not in FLAGS:
        terminated = _flag("terminated", terminated)
    if type(truncated) not in FLAGS:
        truncated = _flag("truncated", truncated)
    if not isinstance(info, Mapping):
        raise ContractViolation(f"info of step is a {type(info).__name__}; expected a dictionary")
    return observation, float(reward), bool(terminated), bool(truncated), info


def _number(reward: object) -> float:
    if getattr(reward, "shape", ()) == () and not isinstance(reward, str | bytes | np.complexfloating):
        with contextlib.suppress(TypeError, ValueError):
            return float(reward)  # type: ignore[arg-type]
    raise ContractViolation(f"reward is {describe(reward)}; expected one number")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype == np.bool_:
        return bool(value)
    came = describe(value) if isinstance(value, np.ndarray) else f"{value!r:.40} ({type(value).__name__})"
    raise ContractViolation(f"{name} = {came}; expected True or False")


def _values(returned: object) -> str:
    return f"{len(returned)} values" if isinstance(returned, tuple) else f"one {type(returned).__name__}"


def describe(value: object) -> str:
    """Type and shape of a value, as text."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} with shape {list(value.shape)}"
    return type(value).__name__
