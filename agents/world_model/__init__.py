"""A latent world model with a mixture of experts, for continuous and discrete tasks in one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names
from mtrl.rollout import Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Needs, Offline, Stream

from .config import WorldModelConfig
from .metrics import METRICS
from .panels import PANELS

if TYPE_CHECKING:
    from .agent import WorldModelAgent
    from .policy import WorldModelPolicy


class WorldModelFactory:
    """What the entry point `world_model` names."""

    name = "world_model"
    config_class = WorldModelConfig
    metrics = METRICS
    panels = PANELS

    def needs(self, config: WorldModelConfig, tasks: TaskSet) -> Needs:
        """A stream of which sequences are replayed; demonstrations where the settings mix them in."""
        offline = Offline(rewards=True, failures=True) if config.replay.demonstrations > 0 else None
        return Needs(offline=offline, online=Stream(sequence=config.sequence))

    def extras(self, config: WorldModelConfig, layout: Layout) -> tuple[Extra, ...]:
        """The prior's log-probability, and plans where they are imitated."""
        from .policy import plan_extras

        return plan_extras(config, layout)

    def build(
        self,
        config: WorldModelConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> WorldModelAgent:
        """A new agent."""
        from .agent import WorldModelAgent

        return WorldModelAgent(config, tasks, seed, rank=rank, ranks=ranks)

    def replay_bytes(self, config: WorldModelConfig, tasks: TaskSet) -> int:
        """Memory of the full replay."""
        from mtrl.data import replay_bytes

        return replay_bytes(tasks, config.replay)

    def saves_replay(self, config: WorldModelConfig) -> bool:
        """Whether checkpoints hold it."""
        return config.replay.save

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> WorldModelPolicy:
        """The policy of a snapshot."""
        from .policy import policy_from

        return policy_from(snapshot, tasks)


AGENT = WorldModelFactory()

__all__ = ["AGENT", "WorldModelAgent", "WorldModelConfig", "WorldModelPolicy"]

__getattr__, __dir__ = lazy_names(__name__)
