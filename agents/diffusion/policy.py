"""Acting: plan a chunk by sampling (or regression), execute its beginning, plan again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mtrl.distillation import FirstStep, spec_of
from mtrl.nn import ChunkNetwork, tensors_of
from mtrl.rollout import ChunkPolicy, ChunkSpec, PolicySnapshot
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .config import DiffusionConfig
from .denoiser import Denoiser, preconditioning, sample
from .losses import regress


class DiffusionSampler:
    """(states, task, z) -> chunk, by denoising z; after behaviour cloning by states and task alone.

    A student that is distilled from it may begin with its network and its first denoising step (`WarmStart`).
    """

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights, which are the averaged ones."""
        self.network = network
        self._config, self._regresses = config, config.objective == "regression"
        self._denoiser = Denoiser(network, config.noise)

    @property
    def spec(self) -> ChunkSpec:
        """The network's sizes; no noise for behaviour cloning."""
        return spec_of(self.network, 0 if self._regresses else self.network.noise_size)

    @property
    def first_step(self) -> FirstStep:
        """One denoising step from sigma_max to 0: D(sigma_max z, sigma_max)."""
        if self._regresses:
            return FirstStep(scale=0.0, skip=0.0, gain=1.0, level=0.0)
        sigma = torch.tensor(self._config.noise.maximum)
        skip, out, into, level = preconditioning(sigma, self._config.noise.data_deviation)
        return FirstStep(
            scale=float(into * sigma), skip=float(skip * sigma), gain=float(out), level=float(level)
        )

    @torch.no_grad()
    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]."""
        history, index = torch.from_numpy(states), torch.from_numpy(task)
        if self._regresses:
            chunk = regress(self.network, history, index).clamp(-1.0, 1.0)
        else:
            noise = torch.from_numpy(z).unflatten(1, (self._config.network.chunk, self.network.actions))
            chunk = sample(self._denoiser, history, index, noise, self._config.sampler_steps)
        result: npt.NDArray[np.float32] = chunk.numpy()
        return result


def policy_of(config: DiffusionConfig, network: ChunkNetwork, version: int) -> ChunkPolicy:
    """The policy that acts with a network's weights."""
    return ChunkPolicy(DiffusionSampler(config, network), config.execution, version)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The policy of a snapshot."""
    config = build(DiffusionConfig, snapshot.config)
    network = ChunkNetwork(config.network, tasks.layout)
    network.load_state_dict(tensors_of(snapshot.tensors))
    return policy_of(config, network.requires_grad_(False).eval(), snapshot.version)
