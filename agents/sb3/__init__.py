"""SAC, PPO and DQN of Stable-Baselines3 as baselines."""

from __future__ import annotations

from collections.abc import Mapping

from mtrl.rollout import Extra, Policy, PolicySnapshot, SharedSpace
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import External, require_one_rank

from .algorithms import replay_bytes
from .baseline import SB3Baseline
from .config import DQNArguments, PPOArguments, SACArguments, SB3Config
from .metrics import METRICS
from .policy import SB3Controller, SB3Policy, controller_from, policy_from


class SB3Factory:
    """What the entry point `sb3` names."""

    name = "sb3"
    config_class = SB3Config
    metrics = METRICS

    def needs(self, config: SB3Config, tasks: TaskSet) -> External:
        """The library collects in its own loop."""
        return External()

    def extras(self, config: SB3Config, layout: Layout) -> tuple[Extra, ...]:
        """The log-probability of an action."""
        return SB3Policy.extras

    def build(
        self,
        config: SB3Config,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> SB3Baseline:
        """A new learner; raises UnsupportedError for more than one rank."""
        require_one_rank("sb3", ranks)
        return SB3Baseline(config, tasks, seed)

    def replay_bytes(self, config: SB3Config, tasks: TaskSet) -> int:
        """Memory of the full replay; 0 for PPO, which keeps none."""
        return replay_bytes(config, SharedSpace(tasks))

    def saves_replay(self, config: SB3Config) -> bool:
        """Checkpoints leave it out."""
        return False

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Policy:
        """The policy of a snapshot."""
        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Controller:
        """The deterministic policy as one forward pass, to be exported without distillation."""
        return controller_from(snapshot, tasks)


AGENT = SB3Factory()

__all__ = [
    "AGENT",
    "DQNArguments",
    "PPOArguments",
    "SACArguments",
    "SB3Baseline",
    "SB3Config",
    "SB3Controller",
    "SB3Factory",
    "SB3Policy",
]
