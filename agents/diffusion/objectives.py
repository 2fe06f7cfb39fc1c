"""The objectives by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mtrl.nn import ChunkNetwork

from .config import DiffusionConfig
from .edm import EDM
from .flow import Flow
from .mip import MinimalIterative
from .objective import Objective
from .regression import Regression

_MADE: Mapping[str, Callable[[DiffusionConfig, ChunkNetwork], Objective]] = {
    "diffusion": EDM,
    "flow": Flow,
    "mip": MinimalIterative,
    "regression": Regression,
}


def objective_of(config: DiffusionConfig, network: ChunkNetwork) -> Objective:
    """The objective that the settings name, of this network."""
    return _MADE[config.objective](config, network)
