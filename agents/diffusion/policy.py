"""Acting: plan a chunk, execute its beginning, plan again."""

from __future__ import annotations

from dataclasses import replace

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
from .view import View


class DiffusionSampler:
    """(states, task, z) -> chunk, by the objective that the network was trained for.

    A student that is distilled from it may begin with its network and its first step (`WarmStart`).
    """

    def __init__(self, config: DiffusionConfig, network: ChunkNetwork) -> None:
        """Shares the network's weights, which are the averaged ones."""
        self.network = network
        self._guidance = config.guidance
        self.objective = objective_of(config, network)
        """What the network was trained for."""

    @property
    def spec(self) -> ChunkSpec:
        """The network's sizes, with self-guidance one state more; no noise where plans are a function of
        states and task alone.
        """
        found = spec_of(self.network, self.network.noise_size if self.objective.noisy else 0)
        return replace(found, history=found.history + 1) if self._guidance else found

    @property
    def first_step(self) -> FirstStep:
        """What makes one forward pass a plan."""
        return self.objective.first_step

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1]."""
        return self._plan(self._view(states, task), z)

    def blend(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
        pull: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """`sample`, bound to the plan before at every step; see `BlendingSampler`."""
        view = self._view(states, task)
        return self._plan(replace(view, ahead=torch.from_numpy(ahead), pull=torch.from_numpy(pull)), z)

    def _plan(self, view: View, z: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        shape = (len(z), self.network.shape.chunk, self.network.actions)
        noise = torch.from_numpy(z).view(shape) if self.objective.noisy else torch.empty(0)
        chunk: npt.NDArray[np.float32] = self.objective.plan(view, noise).numpy()
        return chunk

    def view(self, states: torch.Tensor, task: torch.Tensor) -> View:
        """What the network reads of states [N, h, D_max] and task [N]; with self-guidance of the states a
        decision earlier too.
        """
        if not self._guidance:
            return View(self.network.condition(states, task), task)
        now, before = (self.network.condition(part, task) for part in (states[:, 1:], states[:, :-1]))
        return View(now, task, before, self._guidance)

    @torch.no_grad()
    def _view(self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64]) -> View:
        return self.view(torch.from_numpy(states), torch.from_numpy(task))


def policy_of(config: DiffusionConfig, network: ChunkNetwork, version: int) -> ChunkPolicy:
    """The policy that acts with a network's weights."""
    return ChunkPolicy(DiffusionSampler(config, network), config.execution, version)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The policy of a snapshot."""
    config = build(DiffusionConfig, snapshot.config)
    network = ChunkNetwork(config.network, tasks.layout)
    network.load_state_dict(tensors_of(snapshot.tensors))
    return policy_of(config, network.requires_grad_(False).eval(), snapshot.version)
