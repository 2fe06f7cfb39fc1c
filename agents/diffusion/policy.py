"""Acting: plan a chunk, execute its beginning, plan again."""

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
from .objectives import objective_of


class DiffusionSampler:
    """(states, task, z) -> chunk, by the objective that the network was trained for.

    A student that is distilled from it may begin with its network and its first step (`WarmStart`).
    """

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights, which are the averaged ones."""
        self.network = network
        self._objective = objective_of(config, network)

    @property
    def spec(self) -> ChunkSpec:
        """The network's sizes; no noise where plans are a function of states and task alone."""
        return spec_of(self.network, self.network.noise_size if self._objective.noisy else 0)

    @property
    def first_step(self) -> FirstStep:
        """What makes one forward pass a plan."""
        return self._objective.first_step

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]."""
        noise = torch.from_numpy(z).view(len(z), *self._sizes) if self._objective.noisy else torch.empty(0)
        chunk = self._objective.plan(torch.from_numpy(states), torch.from_numpy(task), noise)
        result: npt.NDArray[np.float32] = chunk.numpy()
        return result

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.network.shape.chunk, self.network.actions


def policy_of(config: DiffusionConfig, network: ChunkNetwork, version: int) -> ChunkPolicy:
    """The policy that acts with a network's weights."""
    return ChunkPolicy(DiffusionSampler(config, network), config.execution, version)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The policy of a snapshot."""
    config = build(DiffusionConfig, snapshot.config)
    network = ChunkNetwork(config.network, tasks.layout)
    network.load_state_dict(tensors_of(snapshot.tensors))
    return policy_of(config, network.requires_grad_(False).eval(), snapshot.version)
