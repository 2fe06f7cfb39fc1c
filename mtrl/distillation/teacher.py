"""What can be distilled by same-noise regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import Execution


@dataclass(frozen=True)
class FirstStep:
    """The affine frame of a one-forward chunk: skip z + gain F(states, task, scale z, level)."""

    scale: float
    """Factor of z at the network's input."""
    skip: float
    """Share of z in the output before the network's correction."""
    gain: float
    """Factor of the network's raw output."""
    level: float
    """Constant noise level that the network is told."""


@runtime_checkable
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
    def first_step(self) -> FirstStep:
        """With these, a copy of the network is the teacher's own one-step version."""

    def chunk(self, states: torch.Tensor, task: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """states [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]; no gradient."""
