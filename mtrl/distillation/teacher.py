"""What can be distilled: any map from states, task and noise to action chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.nn import ChunkNetwork
from mtrl.rollout import Acting, ChunkPolicy, ChunkSampler, ChunkSpec, Policy
from mtrl.tasks import TaskSet

from .config import DistillationConfig


@dataclass(frozen=True)
class FirstStep:
    """How noise enters and leaves a one-forward chunk: skip z + gain F(states, task, scale z, level)."""

    scale: float = 1.0
    """Factor of z at the network's input."""
    skip: float = 0.0
    """Share of z in the output before the network's correction."""
    gain: float = 1.0
    """Factor of the network's raw output."""
    level: float = 0.0
    """Constant noise level, an input of the network."""


@runtime_checkable
class WarmStart(Protocol):
    """A `ChunkSampler` whose network a student may begin from; optional."""

    @property
    def network(self) -> ChunkNetwork:
        """Gives the student its normalisation, and every weight of equal name and shape."""

    @property
    def first_step(self) -> FirstStep:
        """With these, a copy of the network is the teacher's own one-step version."""


class ActionSampler:
    """A memoryless policy as a `ChunkSampler`: chunks of its one action without exploration, no noise."""

    def __init__(self, policy: Policy, tasks: TaskSet) -> None:
        """Raises UnsupportedError for a policy that keeps state between steps."""
        if policy.initial_state(1):
            raise UnsupportedError(
                f"a {type(policy).__name__} keeps state between steps and samples no chunks, so its action "
                "is no function of state and task that a student could learn. Distil with "
                "distillation.method=dagger, or leave the stage 'distill' out"
            )
        self._policy, self._layout = policy, tasks.layout

    @property
    def spec(self) -> ChunkSpec:
        """One state, one action."""
        return ChunkSpec(1, self._layout.state_size, 1, self._layout.continuous_size)

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, 1, D_max], task [N] -> chunk [N, 1, A_max]."""
        count = len(task)
        action = self._policy.act(
            {"state": states[:, -1]},
            task,
            {},
            np.ones(count, dtype=np.bool_),
            acting=Acting(),
            generators=[np.random.default_rng(0)] * count,
        )
        return action.continuous[:, None]


def teacher_of(policy: Policy, tasks: TaskSet) -> ChunkSampler:
    """The map that a student can learn from demonstrations; raises UnsupportedError where there is none."""
    if tasks.layout.pixels_shape is not None:
        seen = [task.name for task in tasks if task.observation.pixels is not None]
        raise UnsupportedError(
            f"a student of what is demonstrated reads state vectors, and {', '.join(seen)} shows images; "
            "distil with distillation.method=dagger"
        )
    return policy.sampler if isinstance(policy, ChunkPolicy) else ActionSampler(policy, tasks)


def spec_of(network: ChunkNetwork, noise_size: int) -> ChunkSpec:
    """The sizes of a sampler made of this network."""
    shape = network.shape
    sizes = (shape.history, network.mean.shape[1], shape.chunk, network.actions)
    return ChunkSpec(*sizes, noise_size, network.choices)


def require_same_sizes(config: DistillationConfig, spec: ChunkSpec, ranks: int) -> None:
    """Raises ConfigError where a student's history or chunk differ from its teacher's, or ranks cannot share
    the batch.
    """
    for key in ("history", "chunk"):
        own, expected = getattr(config.network, key), getattr(spec, key)
        if own != expected:
            raise ConfigError(
                f"distillation.network.{key}={own}, the teacher's is {expected}; they must be equal"
            )
    if config.batch_size % ranks:
        raise ConfigError(
            f"distillation.batch_size={config.batch_size} is what all ranks take together; expected a "
            f"multiple of their number, {ranks}"
        )


@torch.no_grad()
def inherit(student: ChunkNetwork, teacher: ChunkNetwork) -> None:
    """Copies every weight and buffer of equal name and shape: all of them for equal sizes, the first
    blocks for a shallower student, at least the normalisation for any other.
    """
    source = teacher.state_dict()
    for name, value in student.state_dict().items():
        if name in source and source[name].shape == value.shape:
            value.copy_(source[name])
