"""A torso of any kind from its configuration."""

from __future__ import annotations

import torch

from mtrl import registry
from mtrl.errors import OutOfRangeError

from .base import Torso
from .config import TorsoConfig


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
    kind: type[Torso] = registry.load("torso", config.kind)
    return kind(config, inputs, tasks, members, generator)
