"""Results that outlive Ray's shared memory.

What `ray.get` returns are read-only views into the object store, and a view keeps its block there.
A caller that collects thousands of episodes would fill the store and stop every actor; so arrays are
copied once, and the caller may also write to them, as with the local runtime.
"""

from __future__ import annotations

from copy import copy
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from mtrl.rollout import Episodes, Fragment, JobResult

D = TypeVar("D", Episodes, Fragment)


def owned_result(result: JobResult) -> JobResult:
    """The same result with arrays of its own."""
    return result if result.episodes is None else replace(result, episodes=owned(result.episodes))


def owned(data: D) -> D:
    """The same episodes or fragment with arrays of its own."""
    again = copy(data)
    for field in fields(again):
        setattr(again, field.name, _copied(getattr(again, field.name)))
    return again


def _copied(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value
