"""What can be distilled by same-noise regression."""

from __future__ import annotations

from typing import Protocol

import torch

from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import Execution


class ChunkTeacher(Protocol):
    """A deterministic map (state history, task, z) -> chunk, however many forward passes it takes."""

    @property
    def shape(self) -> ChunkShape:
        """Sizes of the teacher's network; history and chunk length bind the student."""

    @property
    def execution(self) -> Execution:
        """How the teacher carries out its chunks."""

    @property
    def noise_size(self) -> int:
        """Length of z; 0 when the teacher is a function of state and task alone."""

    @property
    def network(self) -> ChunkNetwork:
        """The network whose normalisation, and with equal sizes whose weights, the student takes over."""

    @property
    def first_step(self) -> tuple[float, float, float]:
        """(skip, gain, level) with which a copy of the network is the teacher's one-step version."""

    def chunk(self, states: torch.Tensor, task: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """states [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]; no gradient."""
