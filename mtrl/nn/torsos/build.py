"""A torso of any kind from its configuration."""

from __future__ import annotations

import torch

from mtrl.errors import OutOfRangeError

from .base import Torso
from .care import CareTorso
from .config import TorsoConfig
from .experts import ExpertsTorso
from .film import FilmTorso
from .moore import MooreTorso
from .paco import PaCoTorso
from .plain import MLPTorso, ResidualTorso
from .soft_modules import SoftModulesTorso

TORSOS: dict[str, type[Torso]] = {
    "mlp": MLPTorso,
    "multi_head": MLPTorso,
    "residual": ResidualTorso,
    "soft_modules": SoftModulesTorso,
    "paco": PaCoTorso,
    "moore": MooreTorso,
    "care": CareTorso,
    "film": FilmTorso,
    "experts": ExpertsTorso,
}


def build_torso(
    config: TorsoConfig,
    inputs: int,
    tasks: int,
    members: int | None = None,
    generator: torch.Generator | None = None,
) -> Torso:
    """[K, B, inputs] -> [K, B, width], or [N, K, B, width] with `members` = N.

    The same generator state gives the same weights. Raises OutOfRangeError for empty sizes.
    """
    for name, size in (("inputs", inputs), ("tasks", tasks), ("members", 1 if members is None else members)):
        if size < 1:
            raise OutOfRangeError(name, size, "at least 1")
    return TORSOS[config.kind](config, inputs, tasks, members, generator)
