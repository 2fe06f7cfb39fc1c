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
        """Shares the network's weights, which are the averaged ones; not those of the task embedding where
        the policy is conditioned on returns.
        """
        self.trained = network
        """The network as it was trained."""
        self.network = network if network.quality is None else network.aiming_at(config.returns.target)
        """The network that acts."""
        self._guidance = config.guidance
        self._beyond = 0.0 if network.quality is None else config.returns.guidance - 1.0
        self._stride, self._warm = config.plan.stride, config.warm_start
        self.objective = objective_of(config, self.network)
        """What the network was trained for."""

    @property
    def spec(self) -> ChunkSpec:
        """The network's sizes, with self-guidance one state more; no noise where plans are a function of
        states and task alone.
        """
        found = spec_of(self.network, self.network.noise_size if self.objective.noisy else 0)
        planned = self.network.columns - self.network.actions
        history = found.history + (1 if self._guidance else 0)
        return replace(found, history=history, planned=planned, stride=self._stride)

    @property
    def first_step(self) -> FirstStep:
        """What makes one forward pass a plan."""
        return self.objective.first_step

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], z [N, Z] -> chunk [N, H, A_max] in [-1, 1], and D_max columns of
        planned states beside it.
        """
        return self._plan(self._view(states, task), z, states)

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
        # states of the plan before stand at other times
        acts = torch.arange(ahead.shape[2]) < self.network.actions
        bound = torch.from_numpy(pull)[:, None] * acts
        return self._plan(replace(view, ahead=torch.from_numpy(ahead), pull=bound), z, states)

    def resume(
        self,
        states: npt.NDArray[np.float32],
        task: npt.NDArray[np.int64],
        z: npt.NDArray[np.float32],
        ahead: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """`sample`, begun around the plan before; see `ResumingSampler`."""
        network, left, index = self.network, torch.from_numpy(ahead), torch.from_numpy(task)
        actions, planned = left.tensor_split([network.actions], dim=-1)
        if planned.shape[-1]:
            left = torch.cat([actions, network.encode_states(planned, index)], dim=-1)
        return self._plan(replace(self._view(states, task), begin=left, warm=self._warm), z, states)

    @property
    def resumes(self) -> bool:
        """Whether plans begin around the one before."""
        return self._warm > 0

    @torch.no_grad()
    def _plan(
        self, view: View, z: npt.NDArray[np.float32], states: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        network = self.network
        shape = (len(z), network.shape.chunk, network.columns)
        noise = torch.from_numpy(z).view(shape) if self.objective.noisy else torch.empty(0)
        chunk = self.objective.plan(view, noise)
        if network.columns > network.actions:
            actions, planned = chunk.tensor_split([network.actions], dim=-1)
            if self.trained.inverse is not None:
                # the head knows the embedding as it was trained, no return in it
                inferred = self.trained.inferred(torch.from_numpy(states[:, -1]), planned, view.task)
                actions = view.bind(inferred.clamp(-1.0, 1.0))
            chunk = torch.cat([actions, network.decode_states(planned, view.task)], dim=-1)
        found: npt.NDArray[np.float32] = chunk.numpy()
        return found

    def view(self, states: torch.Tensor, task: torch.Tensor) -> View:
        """What the network reads of states [N, h, D_max] and task [N], and what it is led away from."""
        now = states[:, 1:] if self._guidance else states
        away: list[tuple[torch.Tensor, float]] = []
        if self._guidance:
            away.append((self.network.condition(states[:, :-1], task), self._guidance))
        if self._beyond:
            away.append((self.trained.condition(now, task), self._beyond))
        return View(self.network.condition(now, task), task, tuple(away))

    @torch.no_grad()
    def _view(self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64]) -> View:
        return self.view(torch.from_numpy(states), torch.from_numpy(task))


def network_of(config: DiffusionConfig, tasks: TaskSet) -> ChunkNetwork:
    """A new network as the settings say."""
    return ChunkNetwork(
        config.network,
        tasks.layout,
        plans_states=config.plan.stride > 0,
        reads_quality=config.returns.dropout > 0,
        inverse=config.plan.stride if config.plan.inverse else 0,
    )


def policy_of(config: DiffusionConfig, network: ChunkNetwork, version: int) -> ChunkPolicy:
    """The policy that acts with a network's weights."""
    return ChunkPolicy(DiffusionSampler(config, network), config.execution, version)


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The policy of a snapshot."""
    config = build(DiffusionConfig, snapshot.config)
    network = network_of(config, tasks)
    network.load_state_dict(tensors_of(snapshot.tensors))
    return policy_of(config, network.requires_grad_(False).eval(), snapshot.version)
