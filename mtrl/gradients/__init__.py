"""Per-task gradients in one backward pass, and their combination where tasks conflict."""

from .config import PARTS, SurgeryConfig
from .jacobian import OwnedRows, TaskJacobian, TaskRows, cosines
from .metrics import METRICS, Combined, require_finite
from .row_methods import FastestMethod
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
    "SurgeryConfig",
    "TaskJacobian",
    "TaskRows",
    "Weighting",
    "cosines",
    "make_weighting",
    "require_finite",
]
