"""What environments return after a step: checked, never coerced."""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt

from mtrl.faults import ContractViolation

NUMBERS = (float, int, np.float64, np.float32)
"""Types of a reward that are recognised at once; other numbers are recognised more slowly."""
FLAGS = (bool, np.bool_)
"""Types of a flag."""


def outcome(returned: tuple[float, bool, bool]) -> tuple[float, bool, bool]:
    """What `Environment.step` returned: reward, terminated and success as a number and two flags.

    Raises ContractViolation for anything else, such as a success of 0.3.
    """
    reward, terminated, success = returned
    if type(reward) is float and type(terminated) is bool and type(success) is bool:
        return returned
    return number("reward", reward), flag("terminated", terminated), signal("success", success)


def number(name: str, value: object) -> float:
    """One number, finite or not; raises ContractViolation for text, arrays and whatever is no number."""
    if type(value) in NUMBERS:
        return float(value)  # type: ignore[arg-type]
    if getattr(value, "shape", ()) == () and not isinstance(value, str | bytes | np.complexfloating):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)  # type: ignore[arg-type]
    raise ContractViolation(f"{name} is {describe(value)}; expected one number")


def flag(name: str, value: object) -> bool:
    """Python's bool or NumPy's, in an array of rank 0 too; raises ContractViolation for anything else."""
    if type(value) in FLAGS or (
        isinstance(value, np.ndarray) and value.shape == () and value.dtype == np.bool_
    ):
        return bool(value)
    raise ContractViolation(f"{name} = {_shown(value)}; expected True or False")


def signal(name: str, value: object) -> bool:
    """A success signal: a flag, or exactly 0 or 1, as some suites give it; raises ContractViolation."""
    if type(value) in FLAGS:
        return bool(value)
    single = isinstance(value, int | float | np.number | np.ndarray) and np.shape(value) == ()
    if single and (value == 0 or value == 1):
        return bool(value)
    raise ContractViolation(f"{name} = {_shown(value)}; expected True, False, 0 or 1")


def signals(name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Success signals of several copies [M], each a flag or exactly 0 or 1; raises ContractViolation."""
    on: npt.NDArray[np.bool_] = values == 1
    known = on | (values == 0)
    if not known.all():
        copy = int(known.argmin())
        raise ContractViolation(f"{name} of copy {copy} = {values[copy]}; expected True, False, 0 or 1")
    return on


def describe(value: object) -> str:
    """Type and shape of a value, as text."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} with shape {list(value.shape)}"
    return type(value).__name__


def _shown(value: object) -> str:
    return describe(value) if isinstance(value, np.ndarray) else f"{value!r:.40} ({type(value).__name__})"
