"""Diffusion policy over action chunks, and its cloned twin."""

from __future__ import annotations

from mtrl.rollout import ChunkPolicy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

from .agent import METRICS, DiffusionAgent
from .config import DiffusionConfig, NoiseLevels
from .policy import build_policy, network_from
from .teacher import DiffusionTeacher


class DiffusionFactory:
    """What the entry point `diffusion` names."""

    name = "diffusion"
    config_class = DiffusionConfig
    metrics = METRICS

    def build(self, config: DiffusionConfig, layout: Layout, tasks: TaskSet, seed: int) -> DiffusionAgent:
        """A fresh agent."""
        return DiffusionAgent(config, layout, tasks, seed)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
        """The policy of a snapshot."""
        config, network = network_from(snapshot, tasks)
        return build_policy(config, network, snapshot.version)

    def teacher(self, snapshot: PolicySnapshot, tasks: TaskSet) -> DiffusionTeacher:
        """The snapshot as a teacher to be distilled."""
        config, network = network_from(snapshot, tasks)
        return DiffusionTeacher(config, network)


AGENT = DiffusionFactory()

__all__ = [
    "AGENT",
    "DiffusionAgent",
    "DiffusionConfig",
    "DiffusionFactory",
    "DiffusionTeacher",
    "NoiseLevels",
]
