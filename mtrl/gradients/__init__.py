"""Per-task gradients in one backward pass, and what to do where tasks disagree."""

from .config import PARTS, SurgeryConfig
from .jacobian import OwnedRows, TaskJacobian, TaskRows, cosines
from .metrics import METRICS, Combined, require_finite
from .row_methods import FastestMethod
from .sparse import SparseUpdate
from .surgery import GradientSurgery
from .weightings import METHODS, Evidence, Weighting, make_weighting

__all__ = [
    "METHODS",
    "METRICS",
    "PARTS",
    "Combined",
    "Evidence",
    "FastestMethod",
    "GradientSurgery",
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
