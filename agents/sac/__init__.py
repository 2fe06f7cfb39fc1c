"""Multi-task soft actor-critic for continuous and discrete tasks in one run."""

from __future__ import annotations

from collections.abc import Mapping

from mtrl.data import replay_bytes
from mtrl.errors import ConfigError
from mtrl.rollout import Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Needs, Offline, Stream

from .agent import SACAgent
from .config import ExplorationConfig, NetworkConfig, NormalisationConfig, SACConfig
from .controller import SACController, controller_from
from .metrics import METRICS
from .policy import SACPolicy, policy_from


class SACFactory:
    """What the entry point `sac` names."""

    name = "sac"
    config_class = SACConfig
    metrics = METRICS

    def needs(self, config: SACConfig, tasks: TaskSet) -> Needs:
        """A stream; demonstrations where the settings mix them in; a policy to begin as, if named."""
        offline = Offline(rewards=True, failures=True) if config.replay.demonstrations > 0 else None
        return Needs(offline=offline, online=Stream(), parents=("init_from",))

    def extras(self, config: SACConfig, layout: Layout) -> tuple[Extra, ...]:
        """The log-probability of what was drawn."""
        return SACPolicy.extras

    def build(
        self,
        config: SACConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> SACAgent:
        """A new agent, which begins as the actor of the parent "init_from"."""
        parent = (parents or {}).get("init_from")
        if parent is not None and not isinstance(parent, SACPolicy):
            raise ConfigError(
                f"init_from is a policy of the SAC agent; got a {type(parent).__name__}. "
                "Name a run of agent=sac"
            )
        return SACAgent(config, tasks, seed, rank=rank, ranks=ranks, parent=parent)

    def replay_bytes(self, config: SACConfig, tasks: TaskSet) -> int:
        """Memory of the full replay."""
        return replay_bytes(tasks, config.replay)

    def saves_replay(self, config: SACConfig) -> bool:
        """Whether checkpoints hold it."""
        return config.replay.save

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SACPolicy:
        """The policy of a snapshot."""
        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SACController:
        """The same without exploration, for export; of tasks with state vectors and continuous actions."""
        return controller_from(snapshot, tasks)


AGENT = SACFactory()

__all__ = [
    "AGENT",
    "ExplorationConfig",
    "NetworkConfig",
    "NormalisationConfig",
    "SACAgent",
    "SACConfig",
    "SACFactory",
    "SACPolicy",
]
