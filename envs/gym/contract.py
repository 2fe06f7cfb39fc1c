"""Checks of what an environment returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrl.faults import ContractViolation
from mtrl.outcomes import FLAGS, NUMBERS, flag, number, signal

from .entry import Simulator

Step = tuple[Any, float, bool, bool, Mapping[str, Any]]
"""Observation, reward, terminated, truncated, info."""


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
        reward = number("reward", reward)
    if type(terminated) not in FLAGS:
        terminated = flag("terminated", terminated)
    if type(truncated) not in FLAGS:
        truncated = flag("truncated", truncated)
    if not isinstance(info, Mapping):
        raise ContractViolation(f"info of step is a {type(info).__name__}; expected a dictionary")
    return observation, float(reward), bool(terminated), bool(truncated), info


def checked_success(info: Mapping[str, Any]) -> bool:
    """`info["is_success"]`, or `info["success"]`, or False; raises ContractViolation for a value that is
    neither a flag nor exactly 0 or 1.
    """
    for key in ("is_success", "success"):
        if key in info:
            value = info[key]
            return value if type(value) is bool else signal(f"info[{key!r}]", value)
    return False


def _values(returned: object) -> str:
    return f"{len(returned)} values" if isinstance(returned, tuple) else f"one {type(returned).__name__}"
