"""Per-task gradients in one backward pass, and what to do where tasks disagree."""

from .choice import MeasuredChoice
from .jacobian import TaskJacobian
from .rows import OwnedRows, TaskRows, cosines
from .sparse import SparseUpdate
from .surgery import METRICS, Combined, GradientSurgery, SurgeryConfig
from .weightings import METHODS, Evidence, Weighting, make_weighting

__all__ = [
    "METHODS",
    "METRICS",
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
]
