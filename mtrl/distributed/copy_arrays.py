"""Results that outlive Ray's shared memory.

What `ray.get` returns are read-only views into the object store, and a view keeps its block there.
A caller that collects thousands of episodes would fill the store and stop every actor; so arrays are
copied once, and the caller may also write to them, as with the local runtime.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def copy_arrays(value: T) -> T:
    """The same value with arrays of its own, wherever dataclasses, dicts and lists hold them."""
    return _copied(value)  # type: ignore[return-value]


def _copied(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _copied(getattr(value, f.name)) for f in fields(value)})
    return value
