"""Rollouts and learners on Ray: actors, versioned weights, continuous collection, restarted learners.

Importing this package does not import Ray; only `runtime.kind=ray` does.
"""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .cluster import joined
    from .learners import Learner, Progress, Stream, learn_on_ray
    from .pools import fragments_for, require_processors, rollouts_for
    from .resources import ResourcePlan, preflight, processors

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

__getattr__, __dir__ = lazy_names(__name__)
