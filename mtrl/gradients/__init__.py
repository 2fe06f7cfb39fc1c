"""Per-task gradients in one backward pass, and their combination where tasks conflict."""

from .config import PARTS, SurgeryConfig
from .jacobian import OwnedRows, TaskJacobian, TaskRows, cosines
from .metrics import METRICS, Combined, require_finite
from .row_methods import FastestMethod
from .surgery import GradientSurgery
from .weightings import METHODS, Weighting, WeightingInputs, make_weighting

__all__ = [
    "METHODS",
    "METRICS",
    "PARTS",
    "Combined",
    "FastestMethod",
    "GradientSurgery",
    "OwnedRows",
    "SurgeryConfig",
    "TaskJacobian",
    "TaskRows",
    "Weighting",
    "WeightingInputs",
    "cosines",
    "make_weighting",
    "require_finite",
]
