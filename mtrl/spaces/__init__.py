"""The unified observation and action layout: specs, padding, masks and running normalisers."""

from .layout import Layout, Observation
from .normaliser import Moments, RunningMoments, warn_of_constants
from .resolution import ResolutionCheck
from .specs import ActionSpec, ObservationSpec

__all__ = [
    "ActionSpec",
    "Layout",
    "Moments",
    "Observation",
    "ObservationSpec",
    "ResolutionCheck",
    "RunningMoments",
    "warn_of_constants",
]
