"""Per-task gradients in one backward pass, and what to do where tasks disagree."""

from .choice import MeasuredChoice
from .combined import METRICS, Combined
from .config import PARTS, SurgeryConfig
from .finite import require_finite
from .jacobian import TaskJacobian
from .rows import OwnedRows, TaskRows, cosines
from .sparse import SparseUpdate
from .surgery import GradientSurgery
from .weightings import METHODS, Evidence, Weighting, make_weighting

__all__ = [
    "METHODS",
    "METRICS",
    "PARTS",
    "Combined",
    "Evidence",
    "GradientSurgery",
    "MeasuredChoice",
    "OwnedRows",
    "SparseUpdate",
    "SurgeryConfig",
    "TaskJacobian",
    "TaskRows",
    "Weighting",
    "cosines",
    "make_weighting",
    "require_finite",
]
