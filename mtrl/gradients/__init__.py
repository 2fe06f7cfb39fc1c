"""Per-task gradients in one backward pass, and their combination where tasks conflict."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .config import METRICS, PARTS, SurgeryConfig
    from .jacobian import OwnedRows, TaskJacobian, TaskRows, cosines
    from .metrics import Combined, require_finite
    from .row_methods import FastestMethod
    from .surgery import GradientSurgery
    from .weightings import GramianWeighting, Weighting, WeightingInputs, make_weighting, weighting_named

__all__ = [
    "METRICS",
    "PARTS",
    "Combined",
    "FastestMethod",
    "GradientSurgery",
    "GramianWeighting",
    "OwnedRows",
    "SurgeryConfig",
    "TaskJacobian",
    "TaskRows",
    "Weighting",
    "WeightingInputs",
    "cosines",
    "make_weighting",
    "require_finite",
    "weighting_named",
]

__getattr__, __dir__ = lazy_names(__name__)
