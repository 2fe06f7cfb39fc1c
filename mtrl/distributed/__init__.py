"""Rollouts and learners on Ray: actors, versioned weights, continuous collection, restarted learners.

Importing this package does not import Ray; only `runtime.kind=ray` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .pools import fragments_for, require_processors, rollouts_for
from .resources import ResourcePlan, preflight, processors

if TYPE_CHECKING:
    from .cluster import joined
    from .learners import Learner, Progress, Stream, learn_on_ray

__all__ = [
    "Learner",
    "Progress",
    "ResourcePlan",
    "Stream",
    "fragments_for",
    "joined",
    "learn_on_ray",
    "preflight",
    "processors",
    "require_processors",
    "rollouts_for",
]


def __getattr__(name: str) -> object:
    # what imports Ray is imported when first used
    if name in __all__:
        return getattr(import_module(f"{__name__}.{'cluster' if name == 'joined' else 'learners'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
