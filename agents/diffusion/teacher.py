"""The diffusion policy as a teacher: a deterministic map from (states, task, z) to a chunk."""

from __future__ import annotations

import torch

from mtrl.distillation import FirstStep
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import Execution

from .config import DiffusionConfig
from .denoiser import Denoiser, preconditioning
from .losses import regress
from .sampler import sample


class DiffusionTeacher:
    """Offers its chunks for same-noise regression, and its weights as a student's beginning."""

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """`network` holds the averaged weights."""
        self._config, self._network = config, network
        self._denoiser = Denoiser(network, config.noise)

    @property
    def shape(self) -> ChunkShape:
        """Sizes of the network; a student of other sizes cannot start from its weights."""
        return self._config.network

    @property
    def execution(self) -> Execution:
        """How the teacher carries out its chunks."""
        return self._config.execution

    @property
    def noise_size(self) -> int:
        """Length of z; 0 for a cloned policy, which has nothing to choose."""
        return 0 if self._config.objective == "regression" else self._network.noise_size

    @property
    def network(self) -> ChunkNetwork:
        """The network whose weights and normalisation a student may take over."""
        return self._network

    @property
    def first_step(self) -> FirstStep:
        """One denoising step from sigma_max to 0, which is D(sigma_max z, sigma_max)."""
        if self._config.objective == "regression":
            return FirstStep(scale=0.0, skip=0.0, gain=1.0, level=0.0)
        sigma = torch.tensor(self._config.noise.maximum)
        skip, out, into, level = preconditioning(sigma, self._config.noise.data_deviation)
        return FirstStep(
            scale=float(into * sigma), skip=float(skip * sigma), gain=float(out), level=float(level)
        )

    @torch.no_grad()
    def chunk(self, states: torch.Tensor, task: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """states [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]."""
        if self._config.objective == "regression":
            return regress(self._network, states, task).clamp(-1.0, 1.0)
        noise = z.unflatten(1, (self._config.network.chunk, self._network.actions))
        return sample(self._denoiser, states, task, noise, self._config.sampler_steps)
