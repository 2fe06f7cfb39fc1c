"""Torsos that are chosen by configuration and share one contract."""

from .base import Torso
from .build import build_torso
from .care import CareTorso
from .config import (
    CareConfig,
    ExpertsConfig,
    FilmConfig,
    MooreConfig,
    PaCoConfig,
    SoftModulesConfig,
    TorsoConfig,
)
from .experts import ExpertsTorso
from .film import FilmTorso
from .moore import MooreTorso, orthonormalise
from .paco import PaCoTorso
from .plain import MLPTorso, ResidualTorso
from .router import Router, Routing
from .soft_modules import SoftModulesTorso

__all__ = [
    "CareConfig",
    "CareTorso",
    "ExpertsConfig",
    "ExpertsTorso",
    "FilmConfig",
    "FilmTorso",
    "MLPTorso",
    "MooreConfig",
    "MooreTorso",
    "PaCoConfig",
    "PaCoTorso",
    "ResidualTorso",
    "Router",
    "Routing",
    "SoftModulesConfig",
    "SoftModulesTorso",
    "Torso",
    "TorsoConfig",
    "build_torso",
    "orthonormalise",
]
