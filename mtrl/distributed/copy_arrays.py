"""Results that outlive Ray's shared memory.

What `ray.get` returns are read-only views into the object store, and a view keeps its block there.
A caller that collects thousands of episodes would fill the store and stop every actor; so arrays are
copied once, and the caller may also write to them, as with the local runtime.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np


def copy_arrays(value: Any) -> Any:  # noqa: ANN401 - the same type as it came
    """The same value with arrays of its own, wherever dataclasses, dicts and lists hold them."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copy_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_arrays(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: copy_arrays(getattr(value, f.name)) for f in fields(value)})
    return value
