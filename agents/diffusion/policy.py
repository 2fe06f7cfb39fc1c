"""Acting: plan a chunk by sampling (or regression), execute its beginning, plan again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import ChunkPolicy, Execution, Planner, PolicySnapshot
from mtrl.tasks import TaskSet

from .config import DiffusionConfig, NoiseLevels
from .denoiser import Denoiser
from .losses import regress
from .sampler import sample
from .teacher import DiffusionTeacher


def config_from(settings: Mapping[str, Any]) -> DiffusionConfig:
    """The config that a snapshot's JSON holds."""
    nested = dict(settings)
    nested["network"] = ChunkShape(**nested["network"])
    nested["noise"] = NoiseLevels(**nested["noise"])
    nested["execution"] = Execution(**nested["execution"])
    return DiffusionConfig(**nested)


def network_from(snapshot: PolicySnapshot, tasks: TaskSet) -> tuple[DiffusionConfig, ChunkNetwork]:
    """Config and network of a snapshot, ready to act."""
    config = config_from(snapshot.config)
    network = ChunkNetwork(config.network, tasks.layout)
    network.load_state_dict({name: torch.as_tensor(np.array(v)) for name, v in snapshot.tensors.items()})
    return config, network.requires_grad_(False).eval()


def planner_for(config: DiffusionConfig, network: ChunkNetwork) -> Planner:
    """(states, task, z) -> chunk, by denoising z or, for a cloned policy, ignoring it."""
    denoiser = Denoiser(network, config.noise)

    @torch.no_grad()
    def plan(
        states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        history, index = torch.from_numpy(states), torch.from_numpy(task)
        if config.objective == "regression":
            chunk = regress(network, history, index)
        else:
            noise = torch.from_numpy(z).unflatten(1, (config.network.chunk, network.actions))
            chunk = sample(denoiser, history, index, noise, config.sampler_steps)
        result: npt.NDArray[np.float32] = chunk.numpy()
        return result

    return plan


def build_policy(config: DiffusionConfig, network: ChunkNetwork, version: int) -> ChunkPolicy:
    """The acting policy over a network."""
    return ChunkPolicy(
        planner_for(config, network),
        history=config.network.history,
        state_size=network.mean.shape[1],
        chunk=config.network.chunk,
        actions=network.actions,
        noise_size=0 if config.objective == "regression" else network.noise_size,
        execution=config.execution,
        version=version,
        teacher=DiffusionTeacher(config, network),
    )
