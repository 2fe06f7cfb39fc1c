"""Policies of action chunks: diffusion, flow, two passes, and behaviour cloning with the same network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError
from mtrl.lazy import lazy_names
from mtrl.rollout import ChunkPolicy, Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet, require_continuous_states
from mtrl.training import Needs, Offline

from .config import DiffusionConfig, NoiseLevels, PlanSettings, ReturnSettings
from .metrics import METRICS

if TYPE_CHECKING:
    from mtrl.data import Trajectories

    from .agent import DiffusionAgent
    from .consistency import CONSISTENCY
    from .policy import DiffusionSampler


class DiffusionFactory:
    """The entry point `diffusion` of the group mtrl.agents."""

    name = "diffusion"
    config_class = DiffusionConfig
    metrics = METRICS

    def needs(self, config: DiffusionConfig, tasks: TaskSet) -> Needs:
        """Demonstrations alone, with rewards and failures where returns are read; a policy to begin from, if
        named. Raises UnsupportedError for tasks with pixels or discrete actions.
        """
        require_continuous_states(tasks, self.name)
        reads = config.returns.dropout > 0
        return Needs(offline=Offline(rewards=reads, failures=reads), parents=("init_from",))

    def extras(self, config: DiffusionConfig, layout: Layout) -> tuple[Extra, ...]:
        """Empty: the policy returns no additional arrays."""
        return ()

    def build(
        self,
        config: DiffusionConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> DiffusionAgent:
        """A new agent, which begins with the weights of the parent "init_from"."""
        from .agent import DiffusionAgent
        from .policy import DiffusionSampler

        parent = (parents or {}).get("init_from")
        network = None
        if parent is not None:
            if not isinstance(parent, ChunkPolicy) or not isinstance(parent.sampler, DiffusionSampler):
                raise ConfigError(
                    f"init_from is a policy of the diffusion agent; got a {type(parent).__name__} of "
                    "another. Name a run of agent=diffusion"
                )
            network = parent.sampler.trained
        return DiffusionAgent(config, tasks, seed, rank=rank, ranks=ranks, parent=network)

    def twin(self, config: DiffusionConfig) -> DiffusionConfig:
        """Behaviour cloning of successes with the same network; its schedule ends with the run's budget."""
        return dataclasses.replace(
            config,
            objective="regression",
            decay_updates=0,
            plan=PlanSettings(),
            returns=ReturnSettings(),
        )

    def with_budget(self, config: DiffusionConfig, updates: int) -> DiffusionConfig:
        """The settings with a cosine decay that ends with the run, unless they name its length."""
        return config if config.decay_updates else dataclasses.replace(config, decay_updates=updates)

    def adopted(self, snapshot: PolicySnapshot, theirs: TaskSet, ours: TaskSet) -> PolicySnapshot:
        """A policy of other tasks as the beginning of one for `ours`."""
        from .adoption import adopted

        return adopted(snapshot, theirs, ours)

    def synthesised(
        self,
        config: DiffusionConfig,
        tasks: TaskSet,
        data: Mapping[int, Trajectories],
        count: int,
        updates: int,
        seed: int,
        on_update: Callable[[int], None],
    ) -> dict[int, Trajectories]:
        """Transitions drawn from a model of demonstrations."""
        from .synthesis import synthesised

        return synthesised(config, tasks, data, count, updates, seed, on_update)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
        """The policy of a snapshot."""
        from .policy import policy_from

        return policy_from(snapshot, tasks)


AGENT = DiffusionFactory()

__all__ = [
    "AGENT",
    "CONSISTENCY",
    "DiffusionAgent",
    "DiffusionConfig",
    "DiffusionFactory",
    "DiffusionSampler",
    "NoiseLevels",
    "PlanSettings",
    "ReturnSettings",
]

__getattr__, __dir__ = lazy_names(__name__)
